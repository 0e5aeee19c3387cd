// Layers of transformers on many tokens, for inference on the CPU: a plain C interface, free of torch.
//
// Built by build_ops.py, or by hand:
//   g++ -O3 -std=c++17 -fno-trapping-math -fopenmp -fPIC -shared token_layers_cpu.cpp -o libtoken_layers_cpu.so
//
// PyTorch runs a layer one operation after the other, each over all tokens: every intermediate result
// is written to fresh memory and read back, and threads meet after each. Here a thread takes a block
// of tokens through a whole layer, while they stay in its cache. Matrix products are those of the
// library that torch itself uses, whose `sgemm` is handed in; called by one thread of many, it runs on
// that thread. Threads are OpenMP's; loaded after torch the library shares torch's pool.
//
// All matrices are float32 and dense, rows after one another; weights are [outputs, inputs]. Widths
// are multiples of 16. A null pointer leaves out what it stands for.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

namespace {

enum class DType : int { float32 = 0 };

#include "cpu_blas.h"

struct Linear {
  const float *weight, *bias;
  int64_t outputs, inputs;
  const float* packed = nullptr;  // for products with `packed_rows` rows
  int64_t packed_rows = 0;
};
struct Norm {
  const float *weight, *bias;  // weight null: no norm
  float eps;
};

// to [rows, outputs] = beta * to + from [rows, inputs] weight^T, without the bias.
void product(const Blas& blas, const Linear& linear, const float* from, int64_t rows, float beta,
             float* to) {
  const int64_t *m = &linear.outputs, *k = &linear.inputs;
  const float one = 1.0f;
  if (linear.packed && rows == linear.packed_rows)
    blas.compute("P", "N", m, &rows, k, linear.packed, k, from, k, &beta, to, m);
  else
    blas.sgemm("T", "N", m, &rows, k, &one, linear.weight, k, from, k, &beta, to, m);
}

// Gives linear layers their packed weights, as long as this lives.
class Packed {
 public:
  Packed(const Blas& blas, std::initializer_list<Linear*> linears, int64_t rows, int64_t total,
         int threads) {
    if (!blas.pack || total < worth_packing) return;
    std::vector<Linear*> wanted;
    for (Linear* linear : linears)
      if (linear->weight) wanted.push_back(linear);
    memory.resize(wanted.size());
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < int64_t(wanted.size()); ++i) {
      Linear& linear = *wanted[i];
      const float one = 1.0f;
      memory[i].reset(new char[blas.pack_size("A", &linear.outputs, &rows, &linear.inputs) + 64]);
      float* const to = reinterpret_cast<float*>((uintptr_t(memory[i].get()) + 63) / 64 * 64);
      blas.pack("A", "T", &linear.outputs, &rows, &linear.inputs, &one, linear.weight,
                &linear.inputs, to);
      linear.packed = to, linear.packed_rows = rows;
    }
  }

 private:
  static constexpr int64_t worth_packing = 512;  // tokens
  std::vector<std::unique_ptr<char[]>> memory;
};

// out = last_norm(y + fc2(act(fc1(n)))) of tokens [tokens, width], where n = first_norm(y), and
//   y = x                                  without `entry` (a pre-norm layer), or
//   y = n = first_norm(x + entry(joining)) with it (the second half of a post-norm layer).
struct Perceptron {
  const float *x, *joining;
  Linear entry, fc1, fc2;
  Norm first_norm, last_norm;
  int64_t tokens, gelu;
  float* out;
};

// out [batch, rows, heads * depth] = softmax(scale * queries keys, where `attend` allows) values.
//   queries [batch, rows, heads * depth], keys [batch, heads * depth, count] (transposed),
//   values [batch, count, heads * depth]; attend: bool with strides (attend_image, attend_head,
//   attend_row, 1), not 0 where a row may look, which is somewhere for every row.
struct Attention {
  const float *queries, *keys, *values;
  const uint8_t* attend;
  int64_t batch, heads, depth, rows, count, attend_image, attend_head, attend_row;
  float scale;
  float* out;
};
constexpr int64_t key_chunk = 256;  // keys at a time: 32 channels of them fill a core's first cache
constexpr int64_t most_rows = 8;    // queries at a time
constexpr float blocked = -1e30f;   // the logit of a key that is not looked at

// out = x + proj(attention(qkv(norm(x)))) inside windows of `size` x `size` tokens of maps
// [batch, height, width, channels]; maps are padded with zeros after the norm, and shifted
// cyclically. bias [heads, N, padded] with N = size^2 is added to the logits, and so is
// separation [4, N, padded] in the windows of the interior, last column, last row, and corner.
struct Windows {
  const float *x, *bias, *separation;
  Linear qkv, proj;
  Norm norm;
  int64_t batch, height, width, heads, size, shift, padded;
  float scale;
  float* out;
};

// What deformable attention is given: of tokens x [batch, tokens, inputs],
//   value [batch, heads, tokens, depth] = value_proj(x), and of x + pos
//   locations [batch, tokens, heads, levels, points, 2] = reference + offsets / sizes,
//   weights [batch, tokens, heads, levels, points], softmax over levels and points.
// pos has the strides (pos_stride, inputs), reference (reference_batch, reference_token,
// reference_level, 1); inverse holds 1 / (width, height) of every level.
struct Samples {
  const float *x, *pos, *reference, *inverse;
  Linear value_proj, offsets, attention;
  int64_t batch, tokens, heads, levels, points, pos_stride;
  int64_t reference_batch, reference_token, reference_level;
  float *value, *locations, *weights;
};

struct Kernels {
  void (*perceptron)(const Perceptron&, const Blas&, int64_t begin, int64_t end, float* scratch);
  void (*attention)(const Attention&, int64_t image, int64_t head, int64_t first_row,
                    int64_t last_row, float* scratch);
  void (*windows)(const Windows&, const Blas&, int64_t begin, int64_t end, float* scratch);
  void (*samples)(const Samples&, const Blas&, int64_t image, int64_t begin, int64_t end, float* scratch);
};

#define KERNEL_FILE "token_layers_cpu_kernel.h"
#include "cpu_instruction_sets.h"

constexpr int64_t block_floats = 1 << 17;  // of the widest matrix of a block: half a core's cache

// Tokens (or windows) a task: as many as fit the cache, but enough for matrix products to be
// efficient, and tasks of equal size for all threads.
int64_t task_length(int64_t items, int64_t floats_an_item, int64_t least, int64_t threads) {
  int64_t length = at_least_one(block_floats / floats_an_item);
  if (length < least) length = least;
  const int64_t tasks = rounded_up(rounded_up(items, length), threads) * threads;
  return items > 0 ? rounded_up(items, tasks) : 1;
}

Linear linear_of(const float* const*& pointers, const int64_t*& sizes) {
  Linear linear;
  linear.weight = pointers[0], linear.bias = pointers[1];
  linear.outputs = sizes[0], linear.inputs = sizes[1];
  pointers += 2, sizes += 2;
  return linear;
}
Norm norm_of(const float* const*& pointers, const float*& numbers) {
  const Norm norm = {pointers[0], pointers[1], *numbers++};
  pointers += 2;
  return norm;
}

}  // namespace

// Pointers, sizes and numbers are in the order of the structures' members. The caller has checked
// all of it.
extern "C" {

int mask2former_cpu_abi() { return 2; }

int mask2former_cpu_instruction_set(int wanted) { return use_instruction_set(wanted); }

void token_layers_cpu_perceptron(const int64_t* sizes, const float* numbers,
                                 const float* const* pointers, float* out, const Blas* blas, int threads) {
  Perceptron p;
  p.x = *pointers++, p.joining = *pointers++;
  p.tokens = *sizes++, p.gelu = *sizes++;
  p.entry = linear_of(pointers, sizes);
  p.fc1 = linear_of(pointers, sizes);
  p.fc2 = linear_of(pointers, sizes);
  p.first_norm = norm_of(pointers, numbers);
  p.last_norm = norm_of(pointers, numbers);
  p.out = out;
  const Kernels kernels = choose(DType::float32);
  const int64_t length = task_length(p.tokens, p.fc1.outputs, 192, threads);
  const Packed packed(*blas, {&p.entry, &p.fc1, &p.fc2}, length, p.tokens, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Scratch scratch(length * (p.fc1.outputs + p.fc1.inputs));
#pragma omp for schedule(dynamic)
    for (int64_t begin = 0; begin < p.tokens; begin += length)
      kernels.perceptron(p, *blas, begin, smaller(begin + length, p.tokens), scratch.memory);
  }
}

void token_layers_cpu_attention(const int64_t* sizes, const float* queries, const float* keys,
                                const float* values, const uint8_t* attend, float* out, float scale,
                                int threads) {
  const Attention p = {queries,  keys,     values,   attend,   sizes[0], sizes[1], sizes[2],
                       sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], scale,    out};
  const Kernels kernels = choose(DType::float32);
  // A head is a task; many threads share its queries out as well.
  const int64_t heads = at_least_one(p.batch * p.heads);
  const int64_t parts = smaller(rounded_up(2 * threads, heads), rounded_up(p.rows, 16));
  const int64_t length = at_least_one(rounded_up(p.rows, at_least_one(parts)));
  const int64_t tasks = rounded_up(p.rows, length);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    // keys, values, logits of a few rows; a row's sum and largest logit
    Scratch scratch((2 * p.depth + most_rows) * key_chunk + 2 * length);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < p.batch * p.heads * tasks; ++task) {
      const int64_t head = task / tasks, first = task % tasks * length;
      kernels.attention(p, head / p.heads, head % p.heads, first, smaller(first + length, p.rows),
                        scratch.memory);
    }
  }
}

void token_layers_cpu_windows(const int64_t* sizes, const float* numbers,
                              const float* const* pointers, float* out, const Blas* blas, int threads) {
  Windows p;
  p.x = *pointers++, p.bias = *pointers++, p.separation = *pointers++;
  p.batch = *sizes++, p.height = *sizes++, p.width = *sizes++, p.heads = *sizes++;
  p.size = *sizes++, p.shift = *sizes++, p.padded = *sizes++;
  p.qkv = linear_of(pointers, sizes);
  p.proj = linear_of(pointers, sizes);
  p.scale = *numbers++;
  p.norm = norm_of(pointers, numbers);
  p.out = out;
  const Kernels kernels = choose(DType::float32);
  const int64_t tokens = p.size * p.size, channels = p.qkv.inputs;
  const int64_t count = p.batch * rounded_up(p.height, p.size) * rounded_up(p.width, p.size);
  const int64_t length =
      task_length(count, tokens * p.qkv.outputs, rounded_up(128, tokens), threads);
  const Packed packed(*blas, {&p.qkv, &p.proj}, length * tokens, count * tokens, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    // normed, qkv, attended; then the keys of a head, and logits of a few rows
    Scratch scratch(length * tokens * (2 * channels + p.qkv.outputs) +
                    (channels / p.heads + most_rows) * p.padded);
#pragma omp for schedule(dynamic)
    for (int64_t begin = 0; begin < count; begin += length)
      kernels.windows(p, *blas, begin, smaller(begin + length, count), scratch.memory);
  }
}

void token_layers_cpu_samples(const int64_t* sizes, const float* const* pointers, float* value,
                              float* locations, float* weights, const Blas* blas, int threads) {
  Samples p;
  p.x = *pointers++, p.pos = *pointers++, p.reference = *pointers++, p.inverse = *pointers++;
  p.batch = *sizes++, p.tokens = *sizes++, p.heads = *sizes++, p.levels = *sizes++;
  p.points = *sizes++, p.pos_stride = *sizes++, p.reference_batch = *sizes++;
  p.reference_token = *sizes++, p.reference_level = *sizes++;
  p.value_proj = linear_of(pointers, sizes);
  p.offsets = linear_of(pointers, sizes);
  p.attention = linear_of(pointers, sizes);
  p.value = value, p.locations = locations, p.weights = weights;
  const Kernels kernels = choose(DType::float32);
  const int64_t inputs = p.value_proj.inputs, values = p.value_proj.outputs;
  const int64_t length = task_length(p.tokens, inputs + values, 192, threads);
  const int64_t tasks = rounded_up(p.tokens, length);
  const Packed packed(*blas, {&p.value_proj, &p.offsets, &p.attention}, length, p.tokens, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    // x + pos, values, and a row of references
    Scratch scratch(length * (inputs + values) + p.offsets.outputs);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < p.batch * tasks; ++task) {
      const int64_t begin = task % tasks * length;
      kernels.samples(p, *blas, task / tasks, begin, smaller(begin + length, p.tokens),
                      scratch.memory);
    }
  }
}

}  // extern "C"
