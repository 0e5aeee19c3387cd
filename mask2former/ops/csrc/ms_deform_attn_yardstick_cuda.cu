// A yardstick, not a part of the product: multi-scale deformable attention on NVIDIA GPUs by the
// algorithm that Deformable DETR (Zhu et al., 2021) was published with, straightforwardly. What our
// kernels (ms_deform_attn_cuda.cu) are timed against; built by `python build_ops.py --yardstick`.
//
// Forward: a thread for every number of the output, which walks through all samples. Backward: a
// block for every query and head with a thread a channel; gradients of values are added atomically,
// those of locations and weights by the first thread from what all have put into shared memory.
// float32 only.

#include <cstdint>
#include <cuda_runtime.h>

namespace {

constexpr int kMaxLevels = 128;
constexpr int kMaxDepth = 1024;  // threads a block
constexpr int kThreads = 1024;   // of the forward pass
constexpr int kTooManyLevels = -1, kTooDeep = -2, kNotFloat32 = -3;

struct Problem {
  int64_t batch, positions, heads, depth, queries;
  int levels, points;
  const float *value, *locations, *attention, *grad_output;
  float *output, *grad_value, *grad_locations, *grad_attention;
  int64_t start[kMaxLevels];
  int height[kMaxLevels], width[kMaxLevels];
};

// The place of a sample between four pixels of a map.
struct Place {
  int top, left;
  float below, right;  // distance to the pixel above, to the pixel on the left
};

__device__ bool locate(const float* location, int height, int width, Place& place) {
  const float row = location[1] * height - 0.5f, column = location[0] * width - 0.5f;
  if (!(row > -1 && column > -1 && row < height && column < width)) return false;
  place.top = int(floorf(row)), place.left = int(floorf(column));
  place.below = row - place.top, place.right = column - place.left;
  return true;
}

__global__ void forward_kernel(const __grid_constant__ Problem p) {
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= p.batch * p.queries * p.heads * p.depth) return;
  const int64_t channel = index % p.depth, sampled = index / p.depth;  // (batch, query, head)
  const int64_t head = sampled % p.heads, batch = sampled / p.heads / p.queries;
  const int64_t stride = p.heads * p.depth;
  const float* weight = p.attention + sampled * p.levels * p.points;
  const float* location = p.locations + sampled * p.levels * p.points * 2;
  float sum = 0;
  for (int l = 0; l < p.levels; ++l) {
    const int height = p.height[l], width = p.width[l];
    const float* map =
        p.value + (batch * p.positions + p.start[l]) * stride + head * p.depth + channel;
    for (int k = 0; k < p.points; ++k, ++weight, location += 2) {
      Place at;
      if (!locate(location, height, width, at)) continue;
      const bool has_top = at.top >= 0, has_bottom = at.top + 1 < height;
      const bool has_left = at.left >= 0, has_right = at.left + 1 < width;
      const float* pixel = map + (int64_t(at.top) * width + at.left) * stride;
      float sample = 0;
      if (has_top && has_left) sample += (1 - at.below) * (1 - at.right) * pixel[0];
      if (has_top && has_right) sample += (1 - at.below) * at.right * pixel[stride];
      if (has_bottom && has_left) sample += at.below * (1 - at.right) * pixel[width * stride];
      if (has_bottom && has_right) sample += at.below * at.right * pixel[(width + 1) * stride];
      sum += *weight * sample;
    }
  }
  p.output[index] = sum;
}

__global__ void backward_kernel(const __grid_constant__ Problem p) {
  __shared__ float of_x[kMaxDepth], of_y[kMaxDepth], of_weight[kMaxDepth];
  const int64_t sampled = blockIdx.x;  // (batch, query, head)
  const int64_t channel = threadIdx.x;
  const int64_t head = sampled % p.heads, batch = sampled / p.heads / p.queries;
  const int64_t stride = p.heads * p.depth;
  const float grad = p.grad_output[sampled * p.depth + channel];
  for (int l = 0; l < p.levels; ++l) {
    const int height = p.height[l], width = p.width[l];
    const int64_t map = (batch * p.positions + p.start[l]) * stride + head * p.depth + channel;
    for (int k = 0; k < p.points; ++k) {
      const int64_t s = (sampled * p.levels + l) * p.points + k;
      const float weight = p.attention[s];
      float x = 0, y = 0, sample = 0;
      Place at;
      if (locate(p.locations + 2 * s, height, width, at)) {
        for (int corner = 0; corner < 4; ++corner) {
          const int down = corner / 2, aside = corner % 2;
          const int row = at.top + down, column = at.left + aside;
          if (row < 0 || row >= height || column < 0 || column >= width) continue;
          const int64_t pixel = map + (int64_t(row) * width + column) * stride;
          const float vertical = down ? at.below : 1 - at.below;
          const float horizontal = aside ? at.right : 1 - at.right;
          const float value = p.value[pixel];
          sample += vertical * horizontal * value;
          y += (down ? horizontal : -horizontal) * value;
          x += (aside ? vertical : -vertical) * value;
          atomicAdd(p.grad_value + pixel, vertical * horizontal * weight * grad);
        }
      }
      of_weight[channel] = grad * sample;
      of_x[channel] = grad * weight * width * x;
      of_y[channel] = grad * weight * height * y;
      __syncthreads();
      if (channel == 0) {
        float sum_weight = of_weight[0], sum_x = of_x[0], sum_y = of_y[0];
        for (int other = 1; other < p.depth; ++other) {
          sum_weight += of_weight[other], sum_x += of_x[other], sum_y += of_y[other];
        }
        p.grad_attention[s] = sum_weight;
        p.grad_locations[2 * s] = sum_x, p.grad_locations[2 * s + 1] = sum_y;
      }
      __syncthreads();
    }
  }
}

// sizes: batch, positions, heads, depth, queries, levels, points; then height and width of each
// level.
int run(int dtype, const int64_t* sizes, Problem p, bool backward, int device, void* stream) {
  if (dtype != 0) return kNotFloat32;
  p.batch = sizes[0], p.positions = sizes[1], p.heads = sizes[2], p.depth = sizes[3];
  p.queries = sizes[4], p.levels = int(sizes[5]), p.points = int(sizes[6]);
  if (p.levels > kMaxLevels) return kTooManyLevels;
  if (p.depth > kMaxDepth) return kTooDeep;
  int64_t start = 0;
  for (int l = 0; l < p.levels; ++l) {
    p.height[l] = int(sizes[7 + 2 * l]), p.width[l] = int(sizes[8 + 2 * l]), p.start[l] = start;
    start += int64_t(p.height[l]) * p.width[l];
  }
  const int64_t rows = p.batch * p.queries * p.heads;
  if (rows * p.depth == 0) return cudaSuccess;
  const cudaError_t status = cudaSetDevice(device);
  if (status != cudaSuccess) return status;
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  if (backward) {
    backward_kernel<<<unsigned(rows), unsigned(p.depth), 0, on>>>(p);
  } else {
    const unsigned blocks = unsigned((rows * p.depth + kThreads - 1) / kThreads);
    forward_kernel<<<blocks, kThreads, 0, on>>>(p);
  }
  return cudaGetLastError();
}

}  // namespace

// The interface of ms_deform_attn_cuda.cu.
extern "C" {

int mask2former_cuda_abi() { return 2; }

const char* mask2former_cuda_error(int status) {
  if (status == kTooManyLevels) return "more than 128 levels";
  if (status == kTooDeep) return "more than 1024 channels a head";
  if (status == kNotFloat32) return "the yardstick takes float32 only";
  return cudaGetErrorString(static_cast<cudaError_t>(status));
}

int ms_deform_attn_yardstick_cuda_forward(int dtype, const int64_t* sizes, const void* value,
                                          const void* locations, const void* attention,
                                          void* output, int device, void* stream) {
  Problem p = {};
  p.value = static_cast<const float*>(value);
  p.locations = static_cast<const float*>(locations);
  p.attention = static_cast<const float*>(attention);
  p.output = static_cast<float*>(output);
  return run(dtype, sizes, p, false, device, stream);
}

// grad_value is added to: the caller hands in zeros.
int ms_deform_attn_yardstick_cuda_backward(int dtype, const int64_t* sizes, const void* value,
                                           const void* locations, const void* attention,
                                           const void* grad_output, void* grad_value,
                                           void* grad_locations, void* grad_attention, int device,
                                           void* stream) {
  Problem p = {};
  p.value = static_cast<const float*>(value);
  p.locations = static_cast<const float*>(locations);
  p.attention = static_cast<const float*>(attention);
  p.grad_output = static_cast<const float*>(grad_output);
  p.grad_value = static_cast<float*>(grad_value);
  p.grad_locations = static_cast<float*>(grad_locations);
  p.grad_attention = static_cast<float*>(grad_attention);
  return run(dtype, sizes, p, true, device, stream);
}

}  // extern "C"
