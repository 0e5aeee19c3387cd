// Transforms of Winograd's convolution, for one instruction set: see winograd_cpu.cpp.
//
// Included by winograd_cpu.cpp once per instruction set, inside a namespace of its own, with
// VECTOR_BYTES set to the width of a register. No include guard, on purpose.

#include "cpu_vectors.h"

constexpr int lanes = full_lanes<float>;
typedef Vector<float, lanes> Floats;

// B^T d B of 4 x 4 pixels d, channel by channel; results lie `stride` apart.
INLINE void transform_tile(const float* const* pixels, int64_t channels, int64_t stride, float* to) {
  for (int64_t c = 0; c < channels; c += lanes) {
    Floats rows[4][4];
    for (int j = 0; j < 4; ++j) {
      const Floats a = load<lanes>(pixels[j] + c), b = load<lanes>(pixels[4 + j] + c);
      const Floats d = load<lanes>(pixels[8 + j] + c), e = load<lanes>(pixels[12 + j] + c);
      rows[0][j] = a - d, rows[1][j] = b + d, rows[2][j] = d - b, rows[3][j] = b - e;
    }
    for (int i = 0; i < 4; ++i) {
      const Floats a = rows[i][0], b = rows[i][1], d = rows[i][2], e = rows[i][3];
      float* const at = to + 4 * i * stride + c;
      store<lanes>(at, a - d);
      store<lanes>(at + stride, b + d);
      store<lanes>(at + 2 * stride, d - b);
      store<lanes>(at + 3 * stride, b - e);
    }
  }
}

inline void transform_tiles(const Convolution& p, const float* zeros, int64_t begin, int64_t end,
                            float* to) {
  const int64_t stride = (end - begin) * p.inputs;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t image = tile / (p.tile_rows * p.tile_columns);
    const int64_t top = 2 * (tile / p.tile_columns % p.tile_rows) - 1;
    const int64_t left = 2 * (tile % p.tile_columns) - 1;
    const float* pixels[16];
    for (int64_t i = 0; i < 4; ++i)
      for (int64_t j = 0; j < 4; ++j) {
        const int64_t y = top + i, x = left + j;
        const bool inside = y >= 0 && y < p.height && x >= 0 && x < p.width;
        pixels[4 * i + j] = inside ? p.x + ((image * p.height + y) * p.width + x) * p.inputs : zeros;
      }
    transform_tile(pixels, p.inputs, stride, to + (tile - begin) * p.inputs);
  }
}

// A^T m A of one tile, channel by channel, to the pixels that are there.
inline void write_tiles(const Convolution& p, const float* from, int64_t begin, int64_t end) {
  const int64_t stride = (end - begin) * p.outputs;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t image = tile / (p.tile_rows * p.tile_columns);
    const int64_t top = 2 * (tile / p.tile_columns % p.tile_rows);
    const int64_t left = 2 * (tile % p.tile_columns);
    const bool right = left + 1 < p.width, below = top + 1 < p.height;
    float* const out = p.out + ((image * p.height + top) * p.width + left) * p.outputs;
    const int64_t row = p.width * p.outputs;
    const float* const at = from + (tile - begin) * p.outputs;
    for (int64_t c = 0; c < p.outputs; c += lanes) {
      Floats rows[2][4];
      for (int j = 0; j < 4; ++j) {
        const Floats a = load<lanes>(at + j * stride + c), b = load<lanes>(at + (4 + j) * stride + c);
        const Floats d = load<lanes>(at + (8 + j) * stride + c);
        const Floats e = load<lanes>(at + (12 + j) * stride + c);
        rows[0][j] = a + b + d, rows[1][j] = b - d - e;
      }
      const Floats bias = p.bias ? load<lanes>(p.bias + c) : Floats{};
      store<lanes>(out + c, rows[0][0] + rows[0][1] + rows[0][2] + bias);
      if (right) store<lanes>(out + p.outputs + c, rows[0][1] - rows[0][2] - rows[0][3] + bias);
      if (!below) continue;
      store<lanes>(out + row + c, rows[1][0] + rows[1][1] + rows[1][2] + bias);
      if (right) store<lanes>(out + row + p.outputs + c, rows[1][1] - rows[1][2] - rows[1][3] + bias);
    }
  }
}

inline Kernels kernels(DType) { return {transform_tiles, write_tiles}; }
