// Matrix products by the library that torch itself uses, whose functions are handed in; called by one
// thread of many, they run on that thread. To be included inside the unnamed namespace of a library.

// Fortran's. Sizes are read as 32 or 64 bits, whichever the library has: on little-endian machines
// (the only ones for which this is used) both see the same number.
typedef void (*Sgemm)(const char* trans_a, const char* trans_b, const int64_t* m, const int64_t* n,
                      const int64_t* k, const float* alpha, const float* a, const int64_t* lda,
                      const float* b, const int64_t* ldb, const float* beta, float* c,
                      const int64_t* ldc);
// MKL's sgemm in two steps: weights are brought into its own order once, not for every block of
// tokens. The size is in bytes.
typedef size_t (*SgemmPackSize)(const char* which, const int64_t* m, const int64_t* n, const int64_t* k);
typedef void (*SgemmPack)(const char* which, const char* trans, const int64_t* m, const int64_t* n,
                          const int64_t* k, const float* alpha, const float* from, const int64_t* ld,
                          float* to);
typedef void (*SgemmCompute)(const char* trans_a, const char* trans_b, const int64_t* m,
                             const int64_t* n, const int64_t* k, const float* a, const int64_t* lda,
                             const float* b, const int64_t* ldb, const float* beta, float* c,
                             const int64_t* ldc);
struct Blas {
  Sgemm sgemm;
  SgemmPackSize pack_size;  // null, as the next two, where torch has no MKL
  SgemmPack pack;
  SgemmCompute compute;
};

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t rounded_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A thread's memory for the matrices of its tasks. It is kept from call to call: fresh memory costs as
// much as some of the work.
struct Scratch {
  explicit Scratch(int64_t floats) {
    static thread_local std::unique_ptr<float[]> kept;
    static thread_local int64_t length = 0;
    if (length < floats) kept.reset(), kept.reset(new float[floats]), length = floats;
    memory = kept.get();
  }
  float* memory;
};
