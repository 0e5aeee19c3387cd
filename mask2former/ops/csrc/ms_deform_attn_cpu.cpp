// Multi-scale deformable attention on the CPU: a plain C interface, free of torch.
//
// Built by build_ops.py, or by hand:
//   g++ -O3 -std=c++17 -fopenmp -fPIC -shared ms_deform_attn_cpu.cpp -o ms_deform_attn_cpu.so
//
// The kernels are compiled for several instruction sets and chosen when the library runs, so that
// a build can be copied to another machine. Threads are OpenMP's; loaded after torch the library
// shares torch's pool.

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#define INLINE inline __attribute__((always_inline))

namespace {

enum class DType : int { float32 = 0, float64 = 1, float16 = 2, bfloat16 = 3 };

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// Sums are kept in float for the 16-bit types. Locations, attention weights and all gradients but
// that of the output's own dtype come in this type, too.
template <typename T>
struct Accumulator {
  typedef float type;
};
template <>
struct Accumulator<double> {
  typedef double type;
};

INLINE float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
INLINE uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Round to nearest, ties to even.
INLINE BFloat16 to_bfloat16(float value) {
  const uint32_t bits = float_to_bits(value);
  if (value != value) return {uint16_t((bits >> 16) | 0x40u)};
  return {uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
INLINE Float16 to_float16(float value) {
  const uint32_t bits = float_to_bits(value), sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {uint16_t(sign | 0x7e00u)};   // NaN
  if (magnitude >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // rounds to infinity
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 moves the last bit kept to the end
    const float shifted = bits_to_float(magnitude) + 0.5f;
    return {uint16_t(sign | (float_to_bits(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
  return {uint16_t(sign | (rounded >> 13))};
}

struct Level {
  int width, height;
  int64_t start;  // position of its first pixel
};

struct Problem {
  int64_t batch, positions, heads, depth, queries, levels, points;
  const Level* level;
  const void *value, *locations, *attention, *grad_output;
  void *output, *grad_value, *grad_locations, *grad_attention;
};

// What one call of a kernel does. Forward: all heads of some queries. Backward: one head and level.
struct Slice {
  int64_t batch, query_begin, query_end, head, level;
};

struct Kernels {
  void (*forward)(const Problem&, const Slice&);
  void (*backward)(const Problem&, const Slice&);
};

namespace baseline {
#define VECTOR_BYTES 16
#include "ms_deform_attn_cpu_kernel.h"
#undef VECTOR_BYTES
}  // namespace baseline

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HAVE_X86_LEVELS
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
namespace avx2 {
#define VECTOR_BYTES 32
#include "ms_deform_attn_cpu_kernel.h"
#undef VECTOR_BYTES
}  // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,avx512f,avx512vl,avx512bw,avx512dq")
namespace avx512 {
#define VECTOR_BYTES 64
#include "ms_deform_attn_cpu_kernel.h"
#undef VECTOR_BYTES
}  // namespace avx512
#pragma GCC pop_options
#endif

// 0: what every machine of this architecture can run; 1: AVX2; 2: AVX-512.
int best_instruction_set() {
#if defined(HAVE_X86_LEVELS)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    return 1;
#endif
  return 0;
}

int instruction_set = best_instruction_set();

Kernels choose(DType dtype) {
#if defined(HAVE_X86_LEVELS)
  if (instruction_set == 2) return avx512::kernels(dtype);
  if (instruction_set == 1) return avx2::kernels(dtype);
#endif
  return baseline::kernels(dtype);
}

// Below this many multiply-adds a second thread costs more than it brings.
constexpr double WORTH_A_THREAD = 1 << 17;

int useful_threads(const Problem& p, int threads) {
  const double work = double(p.batch) * p.queries * p.heads * p.levels * p.points * 4 * p.depth;
  const double useful = work / WORTH_A_THREAD;
  return useful < threads ? (useful < 1 ? 1 : int(useful)) : threads;
}

std::vector<Level> levels_of(const int64_t* shapes, int64_t levels) {
  std::vector<Level> out(levels);
  int64_t start = 0;
  for (int64_t l = 0; l < levels; ++l) {
    out[l] = {int(shapes[2 * l + 1]), int(shapes[2 * l]), start};
    start += shapes[2 * l] * shapes[2 * l + 1];
  }
  return out;
}

}  // namespace

// sizes: batch, positions, heads, depth, queries, levels, points; then height and width of each
// level. All tensors contiguous and of consistent sizes, which the caller has checked.
extern "C" {

int mask2former_cpu_abi() { return 1; }

// For tests: run a lesser instruction set than the machine has. Gives back the one in use.
int mask2former_cpu_instruction_set(int wanted) {
  const int best = best_instruction_set();
  instruction_set = wanted < 0 || wanted > best ? best : wanted;
  return instruction_set;
}

void ms_deform_attn_cpu_forward(int dtype, const int64_t* sizes, const void* value,
                                const void* locations, const void* attention, void* output,
                                int threads) {
  const std::vector<Level> level = levels_of(sizes + 7, sizes[5]);
  const Problem p{sizes[0],     sizes[1], sizes[2],  sizes[3],  sizes[4], sizes[5],
                  sizes[6],     level.data(), value, locations, attention, nullptr,
                  output,       nullptr,  nullptr,   nullptr};
  const Kernels kernels = choose(DType(dtype));
  constexpr int64_t chunk = 32;  // queries a task: short enough to share out evenly
  const int64_t chunks = (p.queries + chunk - 1) / chunk;
  threads = useful_threads(p, threads);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t task = 0; task < p.batch * chunks; ++task) {
    const int64_t begin = task % chunks * chunk;
    const int64_t end = begin + chunk < p.queries ? begin + chunk : p.queries;
    kernels.forward(p, {task / chunks, begin, end, 0, 0});
  }
}

// grad_value is added to: the caller hands in zeros.
void ms_deform_attn_cpu_backward(int dtype, const int64_t* sizes, const void* value,
                                 const void* locations, const void* attention,
                                 const void* grad_output, void* grad_value, void* grad_locations,
                                 void* grad_attention, int threads) {
  const std::vector<Level> level = levels_of(sizes + 7, sizes[5]);
  const Problem p{sizes[0],     sizes[1],   sizes[2],       sizes[3],  sizes[4],  sizes[5],
                  sizes[6],     level.data(), value,        locations, attention, grad_output,
                  nullptr,      grad_value, grad_locations, grad_attention};
  const Kernels kernels = choose(DType(dtype));
  threads = useful_threads(p, threads);
  // Head by head and level by level no two tasks touch the same gradient: no atomics, and the
  // result does not depend on the number of threads.
  const int64_t tasks = p.batch * p.heads * p.levels;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t level_index = p.levels - 1 - task % p.levels;  // the costly, fine levels first
    const int64_t head = task / p.levels % p.heads;
    kernels.backward(p, {task / (p.levels * p.heads), 0, p.queries, head, level_index});
  }
}

}  // extern "C"
