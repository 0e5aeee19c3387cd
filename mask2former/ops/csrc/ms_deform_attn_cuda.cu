// Multi-scale deformable attention on NVIDIA GPUs: a plain C interface, free of torch.
//
// Built by build_ops.py, or by hand:
//   nvcc -O3 -std=c++17 -arch=native -shared -Xcompiler -fPIC ms_deform_attn_cuda.cu -o ...
//
// Deformable DETR (Zhu et al., 2021), equation 3: for each query and head, a weighted sum of
// bilinear samples of the head's value maps. A thread holds a few neighbouring channels of one
// query and head (16 bytes of values where depth and alignment allow), the threads of one head
// stand side by side in a warp. Sums are in float (double for double).

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace {

enum class DType : int { float32 = 0, float64 = 1, float16 = 2, bfloat16 = 3 };

template <typename T>
struct Accumulator {
  typedef float type;
};
template <>
struct Accumulator<double> {
  typedef double type;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void narrow(float x, float& to) { to = x; }
__device__ __forceinline__ void narrow(double x, double& to) { to = x; }
__device__ __forceinline__ void narrow(float x, __half& to) { to = __float2half_rn(x); }
__device__ __forceinline__ void narrow(float x, __nv_bfloat16& to) { to = __float2bfloat16_rn(x); }

// V neighbouring channels, moved by one instruction where they are at most 16 bytes.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T lane[V];
};

constexpr int kMaxLevels = 128;  // they travel as kernel arguments, of which there are 4 KB
constexpr int kThreads = 256;    // a block
constexpr int kTooManyLevels = -1;

struct Level {
  int width, height;
  int64_t start;  // position of its first pixel
};

struct Problem {
  int64_t batch, positions, heads, depth, queries;
  int levels, points;
  const void *value, *locations, *attention, *grad_output;
  void *output, *grad_value, *grad_locations, *grad_attention;
  Level level[kMaxLevels];
};

// One bilinear sample. The four corners in the order (y0, x0), (y0, x1), (y1, x0), (y1, x1).
template <typename A>
struct Sample {
  int64_t offset[4];  // of the corner's first channel; only of corners inside the map
  bool inside[4];
  A right, below;  // fractions: distance from x0 and y0, in pixels

  // False if no corner lies inside the map, as for every location that is not finite.
  __device__ __forceinline__ bool locate(A x, A y, const Level& level, int64_t row_stride) {
    // Not simplified: rounded as by PyTorch's grid_sample, whose steps these are. At first the
    // samples of a new layer lie on pixel centres exactly, where rounding picks the side from which
    // the slope is taken, so a kernel rounding otherwise would train differently.
    const A column = (((2 * x - 1) + 1) * A(level.width) - 1) / 2;
    const A row = (((2 * y - 1) + 1) * A(level.height) - 1) / 2;
    if (!(column > -1 && row > -1 && column < A(level.width) && row < A(level.height)))
      return false;
    const A left = floor(column), top = floor(row);
    const int x0 = int(left), y0 = int(top);
    right = column - left, below = row - top;
    const bool left_in = x0 >= 0, right_in = x0 + 1 < level.width;
    const bool top_in = y0 >= 0, bottom_in = y0 + 1 < level.height;
    inside[0] = top_in && left_in, inside[1] = top_in && right_in;
    inside[2] = bottom_in && left_in, inside[3] = bottom_in && right_in;
    offset[0] = (level.start + int64_t(y0) * level.width + x0) * row_stride;
    offset[1] = offset[0] + row_stride;
    offset[2] = offset[0] + level.width * row_stride;
    offset[3] = offset[2] + row_stride;
    return true;
  }

  __device__ __forceinline__ void weights(A (&out)[4]) const {
    out[0] = (1 - below) * (1 - right), out[1] = (1 - below) * right;
    out[2] = below * (1 - right), out[3] = below * right;
  }
};

// One thread: V channels of one query and head.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
forward_kernel(const __grid_constant__ Problem p) {
  typedef typename Accumulator<T>::type A;
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t packs = p.depth / V;
  const int64_t index = thread / packs;  // (batch, query, head)
  if (index >= p.batch * p.queries * p.heads) return;
  const int64_t channel = thread % packs * V;
  const int64_t head = index % p.heads, batch = index / (p.heads * p.queries);
  const int64_t row_stride = p.heads * p.depth, samples = int64_t(p.levels) * p.points;

  const T* value = static_cast<const T*>(p.value) + batch * p.positions * row_stride +
                   head * p.depth + channel;
  const A* location = static_cast<const A*>(p.locations) + index * samples * 2;
  const A* attention = static_cast<const A*>(p.attention) + index * samples;
  A sum[V] = {};
  for (int l = 0; l < p.levels; ++l) {
    for (int k = 0; k < p.points; ++k, location += 2, ++attention) {
      Sample<A> sample;
      if (!sample.locate(location[0], location[1], p.level[l], row_stride)) continue;
      A bilinear[4];
      sample.weights(bilinear);
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        if (!sample.inside[corner]) continue;
        const A weight = bilinear[corner] * *attention;
        const Pack<T, V> pack =
            *reinterpret_cast<const Pack<T, V>*>(value + sample.offset[corner]);
#pragma unroll
        for (int i = 0; i < V; ++i) sum[i] += weight * widen(pack.lane[i]);
      }
    }
  }
  Pack<T, V> result;
#pragma unroll
  for (int i = 0; i < V; ++i) narrow(sum[i], result.lane[i]);
  *reinterpret_cast<Pack<T, V>*>(static_cast<T*>(p.output) + index * p.depth + channel) = result;
}

template <typename A, int V>
__device__ __forceinline__ void add(A* to, const A (&what)[V]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (sizeof(A) == 4 && V % 4 == 0) {
#pragma unroll
    for (int i = 0; i < V; i += 4)
      atomicAdd(reinterpret_cast<float4*>(to + i),
                make_float4(what[i], what[i + 1], what[i + 2], what[i + 3]));
    return;
  }
#endif
#pragma unroll
  for (int i = 0; i < V; ++i) atomicAdd(to + i, what[i]);
}

// A group of 2^k threads of one warp: one query and head. Gradients of locations and attention are
// sums over the group; those of values are added atomically, in float, in an order that varies.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
backward_kernel(const __grid_constant__ Problem p, int group) {
  typedef typename Accumulator<T>::type A;
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t index = thread / group;  // (batch, query, head)
  if (index >= p.batch * p.queries * p.heads) return;  // whole groups
  const int lane = threadIdx.x % group;
  const unsigned members = (group == 32 ? ~0u : (1u << group) - 1)
                           << (threadIdx.x % 32 / group * group);
  const int64_t head = index % p.heads, batch = index / (p.heads * p.queries);
  const int64_t row_stride = p.heads * p.depth, samples = int64_t(p.levels) * p.points;

  const int64_t head_offset = batch * p.positions * row_stride + head * p.depth;
  const T* value = static_cast<const T*>(p.value) + head_offset;
  A* grad_value = static_cast<A*>(p.grad_value) + head_offset;
  const A* grad = static_cast<const A*>(p.grad_output) + index * p.depth;
  for (int l = 0; l < p.levels; ++l) {
    const Level& level = p.level[l];
    for (int k = 0; k < p.points; ++k) {
      const int64_t s = index * samples + int64_t(l) * p.points + k;
      const A* location = static_cast<const A*>(p.locations) + 2 * s;
      const A attention = static_cast<const A*>(p.attention)[s];
      A grad_x = 0, grad_y = 0, grad_attention = 0;
      Sample<A> sample;
      // The same for all threads of the group, so they meet again below.
      if (sample.locate(location[0], location[1], level, row_stride)) {
        A bilinear[4], dot[4] = {};
        sample.weights(bilinear);
        for (int64_t channel = int64_t(lane) * V; channel < p.depth;
             channel += int64_t(group) * V) {
          A g[V];
          const Pack<A, V> loaded = *reinterpret_cast<const Pack<A, V>*>(grad + channel);
#pragma unroll
          for (int i = 0; i < V; ++i) g[i] = loaded.lane[i];
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            if (!sample.inside[corner]) continue;
            const int64_t at = sample.offset[corner] + channel;
            const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(value + at);
            const A scale = bilinear[corner] * attention;
            A scaled[V];
#pragma unroll
            for (int i = 0; i < V; ++i) {
              dot[corner] += g[i] * widen(pack.lane[i]);
              scaled[i] = scale * g[i];
            }
            add<A, V>(grad_value + at, scaled);
          }
        }
        const A right = sample.right, below = sample.below;
        grad_attention = bilinear[0] * dot[0] + bilinear[1] * dot[1] + bilinear[2] * dot[2] +
                         bilinear[3] * dot[3];
        grad_x = attention * A(level.width) *
                 ((1 - below) * (dot[1] - dot[0]) + below * (dot[3] - dot[2]));
        grad_y = attention * A(level.height) *
                 ((1 - right) * (dot[2] - dot[0]) + right * (dot[3] - dot[1]));
        for (int step = group / 2; step > 0; step /= 2) {
          grad_attention += __shfl_xor_sync(members, grad_attention, step);
          grad_x += __shfl_xor_sync(members, grad_x, step);
          grad_y += __shfl_xor_sync(members, grad_y, step);
        }
      }
      if (lane == 0) {
        static_cast<A*>(p.grad_locations)[2 * s] = grad_x;
        static_cast<A*>(p.grad_locations)[2 * s + 1] = grad_y;
        static_cast<A*>(p.grad_attention)[s] = grad_attention;
      }
    }
  }
}

// ---------------------------------------------------------------- launching

template <typename T, int V>
cudaError_t launch_pack(const Problem& p, bool backward, cudaStream_t stream) {
  const int64_t rows = p.batch * p.queries * p.heads, packs = p.depth / V;
  if (backward) {
    int group = 1;
    while (group < 32 && group < packs) group *= 2;
    const int64_t blocks = (rows * group + kThreads - 1) / kThreads;
    backward_kernel<T, V><<<blocks, kThreads, 0, stream>>>(p, group);
  } else {
    const int64_t blocks = (rows * packs + kThreads - 1) / kThreads;
    forward_kernel<T, V><<<blocks, kThreads, 0, stream>>>(p);
  }
  return cudaGetLastError();
}

// Whether all tensors may be read V channels at a time.
template <typename T>
bool fits(const Problem& p, int v) {
  typedef typename Accumulator<T>::type A;
  const auto aligned = [&](const void* pointer, size_t size) {
    return reinterpret_cast<uintptr_t>(pointer) % (size * v) == 0;
  };
  return p.depth % v == 0 && aligned(p.value, sizeof(T)) && aligned(p.output, sizeof(T)) &&
         aligned(p.grad_output, sizeof(A)) && aligned(p.grad_value, sizeof(A));
}

template <typename T>
cudaError_t launch(const Problem& p, bool backward, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2)
    if (fits<T>(p, 8)) return launch_pack<T, 8>(p, backward, stream);
  if constexpr (sizeof(T) <= 4)
    if (fits<T>(p, 4)) return launch_pack<T, 4>(p, backward, stream);
  if (fits<T>(p, 2)) return launch_pack<T, 2>(p, backward, stream);
  return launch_pack<T, 1>(p, backward, stream);
}

// sizes: batch, positions, heads, depth, queries, levels, points; then height and width of each
// level.
int run(int dtype, const int64_t* sizes, Problem p, bool backward, int device, void* stream) {
  p.batch = sizes[0], p.positions = sizes[1], p.heads = sizes[2], p.depth = sizes[3];
  p.queries = sizes[4], p.levels = int(sizes[5]), p.points = int(sizes[6]);
  if (p.levels > kMaxLevels) return kTooManyLevels;
  int64_t start = 0;
  for (int l = 0; l < p.levels; ++l) {
    p.level[l] = {int(sizes[8 + 2 * l]), int(sizes[7 + 2 * l]), start};
    start += sizes[7 + 2 * l] * sizes[8 + 2 * l];
  }
  if (p.batch * p.queries * p.heads * p.depth == 0) return cudaSuccess;
  // The caller's guard has made the device current; this runtime, linked statically beside
  // torch's, has to hear of it, too.
  const cudaError_t status = cudaSetDevice(device);
  if (status != cudaSuccess) return status;
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (DType(dtype)) {
    case DType::float32: return launch<float>(p, backward, on);
    case DType::float64: return launch<double>(p, backward, on);
    case DType::float16: return launch<__half>(p, backward, on);
    default: return launch<__nv_bfloat16>(p, backward, on);
  }
}

}  // namespace

// All tensors contiguous and of consistent sizes, which the caller has checked. Gives back 0 or an
// error for mask2former_cuda_error.
extern "C" {

int mask2former_cuda_abi() { return 2; }

const char* mask2former_cuda_error(int status) {
  if (status == kTooManyLevels) return "more than 128 levels";
  return cudaGetErrorString(static_cast<cudaError_t>(status));
}

int ms_deform_attn_cuda_forward(int dtype, const int64_t* sizes, const void* value,
                                const void* locations, const void* attention, void* output,
                                int device, void* stream) {
  Problem p = {};
  p.value = value, p.locations = locations, p.attention = attention, p.output = output;
  return run(dtype, sizes, p, false, device, stream);
}

// grad_value is added to: the caller hands in zeros.
int ms_deform_attn_cuda_backward(int dtype, const int64_t* sizes, const void* value,
                                 const void* locations, const void* attention,
                                 const void* grad_output, void* grad_value, void* grad_locations,
                                 void* grad_attention, int device, void* stream) {
  Problem p = {};
  p.value = value, p.locations = locations, p.attention = attention, p.grad_output = grad_output;
  p.grad_value = grad_value, p.grad_locations = grad_locations;
  p.grad_attention = grad_attention;
  return run(dtype, sizes, p, true, device, stream);
}

}  // extern "C"
