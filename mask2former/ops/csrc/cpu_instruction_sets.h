// Compiles a kernel for several instruction sets and chooses when the library runs, so that a build
// can be copied to another machine.
//
// KERNEL_FILE names a header with `inline Kernels kernels(DType)`; it is included once per
// instruction set, in a namespace of its own, with VECTOR_BYTES set to the width of a register.
// DType and Kernels must be known. To be included inside the unnamed namespace of a library.

#define INLINE inline __attribute__((always_inline))

namespace baseline {
#define VECTOR_BYTES 16
#include KERNEL_FILE
#undef VECTOR_BYTES
}  // namespace baseline

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HAVE_X86_LEVELS
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
namespace avx2 {
#define VECTOR_BYTES 32
#include KERNEL_FILE
#undef VECTOR_BYTES
}  // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,avx512f,avx512vl,avx512bw,avx512dq")
namespace avx512 {
#define VECTOR_BYTES 64
#include KERNEL_FILE
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

// For tests: a lesser instruction set than the machine has. Gives back the one in use.
int use_instruction_set(int wanted) {
  const int best = best_instruction_set();
  instruction_set = wanted < 0 || wanted > best ? best : wanted;
  return instruction_set;
}

Kernels choose(DType dtype) {
#if defined(HAVE_X86_LEVELS)
  if (instruction_set == 2) return avx512::kernels(dtype);
  if (instruction_set == 1) return avx2::kernels(dtype);
#endif
  return baseline::kernels(dtype);
}

int64_t at_least_one(int64_t number) { return number < 1 ? 1 : number; }
