// Neighbourhood attention on NVIDIA GPUs: a plain C interface, free of torch.
//
// Built by build_ops.py, or by hand:
//   nvcc -O3 -std=c++17 -arch=native -shared -Xcompiler -fPIC neighborhood_attention_cuda.cu -o ...
//
// NAT (Hassani et al., CVPR 2023) and DiNAT (Hassani and Shi, 2022): every pixel attends to the
// kernel x kernel pixels around it, taken in steps of the dilation. Pixels whose rows and columns
// agree modulo the dilation form a class: a map of its own, in which windows are dense and clamped
// at the borders.

#include <cfloat>
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
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float lowest(float) { return -FLT_MAX; }
__device__ __forceinline__ double lowest(double) { return -DBL_MAX; }

constexpr int kDepthTooLarge = -1, kMapTooLarge = -2;

#include "neighborhood_attention_cuda_kernels.h"

// ---------------------------------------------------------------- launching

template <typename Kernel>
cudaError_t launch_kernel(Kernel kernel, const Problem& p, int64_t blocks, size_t bytes,
                          cudaStream_t stream) {
  if (bytes > 48 * 1024) {  // more than every GPU grants unasked
    const cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
    if (status != cudaSuccess) return status;
  }
  kernel<<<unsigned(blocks), kThreads, bytes, stream>>>(p);
  return cudaGetLastError();
}

template <typename T, int DEPTH>
int launch_depth(const Problem& p, bool backward, cudaStream_t stream) {
  const size_t word = sizeof(typename Accumulator<T>::type);
  const int64_t blocks =
      p.batch * p.heads * p.dilation * p.dilation * p.tiles_down() * p.tiles_across();
  if (blocks > INT32_MAX) return kMapTooLarge;
  const size_t rows = 2 * size_t(DEPTH) * pitch_of(p) * word;
  if (!backward) return launch_kernel(forward_kernel<T, DEPTH>, p, blocks, rows, stream);
  const size_t biases = p.grad_bias ? size_t(p.table()) * p.table() * word : 0;
  const cudaError_t status =
      launch_kernel(query_kernel<T, DEPTH>, p, blocks, rows + biases, stream);
  if (status != cudaSuccess) return status;
  return launch_kernel(key_kernel<T, DEPTH>, p, blocks, rows + 2 * pitch_of(p) * word, stream);
}

template <typename T>
int launch(const Problem& p, bool backward, cudaStream_t stream) {
  if (p.depth <= 16) return launch_depth<T, 16>(p, backward, stream);
  if (p.depth <= 32) return launch_depth<T, 32>(p, backward, stream);
  if (p.depth <= 64) return launch_depth<T, 64>(p, backward, stream);
  if (p.depth <= 128) return launch_depth<T, 128>(p, backward, stream);
  return kDepthTooLarge;
}

// sizes: batch, heads, height, width, depth, kernel, dilation.
int run(int dtype, const int64_t* sizes, double scale, Problem p, bool backward, int device,
        void* stream) {
  p.batch = sizes[0], p.heads = sizes[1], p.height = int(sizes[2]), p.width = int(sizes[3]);
  p.depth = int(sizes[4]), p.kernel = int(sizes[5]), p.dilation = int(sizes[6]), p.scale = scale;
  if (p.batch * p.heads * p.height * p.width * p.depth == 0) return cudaSuccess;
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

// Sizes are consistent, which the caller has checked. bias and grad_bias may be null. Gives back 0
// or an error for mask2former_cuda_error.
extern "C" {

int mask2former_cuda_abi() { return 2; }

const char* mask2former_cuda_error(int status) {
  if (status == kDepthTooLarge) return "more than 128 channels a head";
  if (status == kMapTooLarge) return "more than 2^31 tiles";
  return cudaGetErrorString(static_cast<cudaError_t>(status));
}

int neighborhood_attention_cuda_forward(int dtype, const int64_t* sizes, double scale,
                                        const void* query, const void* key, const void* value,
                                        const void* bias, void* output, void* logsumexp,
                                        int device, void* stream) {
  Problem p = {};
  p.query = query, p.key = key, p.value = value, p.bias = bias;
  p.output = output, p.logsumexp = logsumexp;
  return run(dtype, sizes, scale, p, false, device, stream);
}

// grad_bias is added to: the caller hands in zeros.
int neighborhood_attention_cuda_backward(int dtype, const int64_t* sizes, double scale,
                                         const void* query, const void* key, const void* value,
                                         const void* bias, const void* logsumexp,
                                         const void* delta, const void* grad_output,
                                         void* grad_query, void* grad_key, void* grad_value,
                                         void* grad_bias, int device, void* stream) {
  Problem p = {};
  p.query = query, p.key = key, p.value = value, p.bias = bias, p.delta = delta;
  p.logsumexp = const_cast<void*>(logsumexp), p.grad_output = grad_output;
  p.grad_query = grad_query, p.grad_key = grad_key, p.grad_value = grad_value;
  p.grad_bias = grad_bias;
  return run(dtype, sizes, scale, p, true, device, stream);
}

}  // extern "C"
