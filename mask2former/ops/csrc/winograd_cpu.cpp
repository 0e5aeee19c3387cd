// 3 x 3 convolutions with stride 1 and padding 1 on the CPU, for inference: a plain C interface, free
// of torch.
//
// Built by build_ops.py, or by hand:
//   g++ -O3 -std=c++17 -fno-trapping-math -fopenmp -fPIC -shared winograd_cpu.cpp -o libwinograd_cpu.so
//
// Winograd's minimal filtering F(2 x 2, 3 x 3) (Lavin and Gray, Fast Algorithms for Convolutional
// Neural Networks, CVPR 2016): 2 x 2 pixels of the output take 16 multiplications a pair of channels,
// not 36. Weights and tiles of 4 x 4 pixels are transformed, multiplied place by place, which is 16
// matrix products over channels, and transformed back. The transforms only add, subtract and halve, so
// results differ from a direct convolution's by a few roundings. A thread takes a block of tiles
// through all three steps while they stay in its cache.
//
// Tensors are float32: x [batch, height, width, inputs], out [batch, height, width, outputs]; channels
// are multiples of 16.

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace {

enum class DType : int { float32 = 0 };

#include "cpu_blas.h"

constexpr int places = 16;  // of a 4 x 4 tile

struct Convolution {
  const float *x, *weight, *bias;  // bias may be null
  float* out;
  int64_t batch, height, width, inputs, outputs;
  int64_t weight_output, weight_input, weight_row, weight_column;  // strides of [K, C, 3, 3]
  int64_t tile_rows, tile_columns;
};

struct Kernels {
  // Tiles `begin` to `end` of all images: to [places, end - begin, inputs]
  void (*transform_tiles)(const Convolution&, const float* zeros, int64_t begin, int64_t end, float* to);
  // from [places, end - begin, outputs]
  void (*write_tiles)(const Convolution&, const float* from, int64_t begin, int64_t end);
};

#define KERNEL_FILE "winograd_cpu_kernel.h"
#include "cpu_instruction_sets.h"

// G g G^T of all filters of one output: to [places, outputs, inputs].
void transform_weights(const Convolution& p, int64_t output, float* to) {
  for (int64_t c = 0; c < p.inputs; ++c) {
    const float* const from = p.weight + output * p.weight_output + c * p.weight_input;
    float rows[4][3];
    for (int j = 0; j < 3; ++j) {
      const float a = from[j * p.weight_column], b = from[p.weight_row + j * p.weight_column];
      const float d = from[2 * p.weight_row + j * p.weight_column];
      rows[0][j] = a, rows[1][j] = 0.5f * (a + b + d), rows[2][j] = 0.5f * (a - b + d), rows[3][j] = d;
    }
    for (int i = 0; i < 4; ++i) {
      const float a = rows[i][0], b = rows[i][1], d = rows[i][2];
      const float columns[4] = {a, 0.5f * (a + b + d), 0.5f * (a - b + d), d};
      for (int j = 0; j < 4; ++j)
        to[((i * 4 + j) * p.outputs + output) * p.inputs + c] = columns[j];
    }
  }
}

// Weights [places, outputs, inputs], in the order of MKL for blocks of `rows` tiles if it is there.
class Weights {
 public:
  Weights(const Convolution& p, const Blas& blas, int64_t rows, int threads)
      : plain(new float[places * p.outputs * p.inputs]), packed_rows(rows) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t output = 0; output < p.outputs; ++output)
      transform_weights(p, output, plain.get());
    if (!blas.pack) return;
    const int64_t m = p.outputs, k = p.inputs;
    size = (blas.pack_size("A", &m, &rows, &k) / sizeof(float) + 15) / 16 * 16;
    packed.reset(new float[places * size + 16]);
    const float one = 1.0f;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int place = 0; place < places; ++place)
      blas.pack("A", "T", &m, &rows, &k, &one, plain.get() + place * m * k, &k, at(place));
  }

  // to [rows, outputs] = from [rows, inputs] (weights of a place)^T
  void product(const Convolution& p, const Blas& blas, int place, const float* from, int64_t rows,
               float* to) const {
    const int64_t m = p.outputs, k = p.inputs;
    const float one = 1.0f, zero = 0.0f;
    if (packed && rows == packed_rows)
      blas.compute("P", "N", &m, &rows, &k, at(place), &k, from, &k, &zero, to, &m);
    else
      blas.sgemm("T", "N", &m, &rows, &k, &one, plain.get() + place * m * k, &k, from, &k, &zero, to, &m);
  }

 private:
  float* at(int place) const {  // on a cache line of its own
    const uintptr_t start = (uintptr_t(packed.get()) + 63) / 64 * 64;
    return reinterpret_cast<float*>(start) + place * size;
  }
  std::unique_ptr<float[]> plain, packed;
  int64_t packed_rows, size = 0;
};

constexpr int64_t block_floats = 1 << 18;  // of the tiles of a block, inputs or outputs

}  // namespace

// sizes: batch, height, width, inputs, outputs, then the weight's strides. The caller has checked all
// of it.
extern "C" {

int mask2former_cpu_abi() { return 2; }

int mask2former_cpu_instruction_set(int wanted) { return use_instruction_set(wanted); }

void winograd_cpu_convolution(const int64_t* sizes, const float* x, const float* weight,
                              const float* bias, float* out, const Blas* blas, int threads) {
  Convolution p = {x, weight, bias, out, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4],
                   sizes[5], sizes[6], sizes[7], sizes[8], 0, 0};
  p.tile_rows = (p.height + 1) / 2, p.tile_columns = (p.width + 1) / 2;
  const int64_t tiles = p.batch * p.tile_rows * p.tile_columns;
  if (tiles == 0) return;
  const Kernels kernels = choose(DType::float32);
  const int64_t widest = p.inputs > p.outputs ? p.inputs : p.outputs;
  const int64_t most = at_least_one(block_floats / (places * widest));
  const int64_t tasks = rounded_up(rounded_up(tiles, most), threads) * threads;
  const int64_t length = at_least_one(rounded_up(tiles, tasks));
  const Weights weights(p, *blas, length, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Scratch scratch(places * length * (p.inputs + p.outputs) + p.inputs);
    float *const from = scratch.memory, *const to = from + places * length * p.inputs;
    float* const zeros = to + places * length * p.outputs;
    std::memset(zeros, 0, p.inputs * sizeof(float));
#pragma omp for schedule(dynamic)
    for (int64_t begin = 0; begin < tiles; begin += length) {
      const int64_t end = smaller(begin + length, tiles), rows = end - begin;
      kernels.transform_tiles(p, zeros, begin, end, from);
      for (int place = 0; place < places; ++place)
        weights.product(p, *blas, place, from + place * rows * p.inputs, rows,
                        to + place * rows * p.outputs);
      kernels.write_tiles(p, to, begin, end);
    }
  }
}

}  // extern "C"
