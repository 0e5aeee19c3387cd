// The kernels of neighborhood_attention_cuda.cu, which includes this inside its unnamed namespace.
//
// A block takes a tile of one class of pixels at one head, a thread one pixel of it, whose channels
// it keeps in registers. What the tile looks at passes through shared memory one row at a time,
// channel by channel, so that neighbouring threads read neighbouring words. Sums are in float
// (double for double). Nothing but the gradient of the bias is added atomically: keys and values
// collect their gradients from the queries that look at them.

constexpr int kTileWidth = 16, kTileHeight = 8, kThreads = kTileWidth * kTileHeight;

// All tensors are contiguous, except for the output, which is [batch, height, width, heads, depth].
struct Problem {
  int64_t batch, heads;
  int height, width, depth, kernel, dilation;
  double scale;
  const void *query, *key, *value, *bias, *delta, *grad_output;
  void *output, *logsumexp, *grad_query, *grad_key, *grad_value, *grad_bias;

  __host__ __device__ __forceinline__ int table() const { return 2 * kernel - 1; }
  __host__ __device__ __forceinline__ int tiles_down() const {
    return ((height + dilation - 1) / dilation + kTileHeight - 1) / kTileHeight;
  }
  __host__ __device__ __forceinline__ int tiles_across() const {
    return ((width + dilation - 1) / dilation + kTileWidth - 1) / kTileWidth;
  }
};

// One axis of a tile, counted in pixels of the class.
struct Axis {
  int residue, dilation, length, kernel;
  int begin, end;  // of the tile

  __device__ __forceinline__ Axis(int size, int residue_, const Problem& p, int tile, int extent)
      : residue(residue_), dilation(p.dilation), kernel(p.kernel) {
    length = (size - residue + dilation - 1) / dilation;
    begin = tile * extent;
    end = min(begin + extent, length);
  }
  __device__ __forceinline__ int pixel(int i) const { return residue + dilation * i; }
  // First key that a query looks at.
  __device__ __forceinline__ int window(int query) const {
    return max(0, min(query - kernel / 2, length - kernel));
  }
  // First and last query that look at a key.
  __device__ __forceinline__ int first_query(int key) const {
    return key < kernel ? 0 : key - kernel / 2;
  }
  __device__ __forceinline__ int last_query(int key) const {
    return key >= length - kernel ? length - 1 : key + kernel / 2;
  }
};

// The tile of a block, and the pixel of this thread; threads beyond the class's edge copy the last.
struct Tile {
  int64_t plane;  // batch and head
  int head;
  Axis rows, columns;
  int row, column;
  bool active;

  __device__ __forceinline__ static Tile of(const Problem& p) {
    int64_t block = blockIdx.x;
    const int across = int(block % p.tiles_across());
    block /= p.tiles_across();
    const int down = int(block % p.tiles_down());
    block /= p.tiles_down();
    const int column_class = int(block % p.dilation);
    block /= p.dilation;
    const int row_class = int(block % p.dilation);
    block /= p.dilation;
    Tile tile = {block, int(block % p.heads),
                 Axis(p.height, row_class, p, down, kTileHeight),
                 Axis(p.width, column_class, p, across, kTileWidth), 0, 0, false};
    tile.row = tile.rows.begin + int(threadIdx.x) / kTileWidth;
    tile.column = tile.columns.begin + int(threadIdx.x) % kTileWidth;
    tile.active = tile.row < tile.rows.end && tile.column < tile.columns.end;
    tile.row = min(tile.row, tile.rows.end - 1);
    tile.column = min(tile.column, tile.columns.end - 1);
    return tile;
  }
  // Classes differ by one row or column, so the last tile of some is empty.
  __device__ __forceinline__ bool empty() const {
    return rows.begin >= rows.end || columns.begin >= columns.end;
  }
  __device__ __forceinline__ int64_t pixel(const Problem& p, int i, int j) const {
    return (plane * p.height + rows.pixel(i)) * p.width + columns.pixel(j);
  }
};

// Words between two channels of a row in shared memory: room for the longest row that a tile looks
// at or is looked at from, and odd, so that channels of one pixel lie in different banks.
__host__ __device__ __forceinline__ int pitch_of(const Problem& p) {
  return (kTileWidth + 2 * p.kernel) | 1;
}

// Brings pixels [first, first + count) of row i into shared memory, channel by channel.
template <int DEPTH, typename T, typename A>
__device__ __forceinline__ void fetch_row(const Problem& p, const Tile& tile, const void* from,
                                          int i, int first, int count, int pitch, A* to) {
  for (int at = threadIdx.x; at < count * DEPTH; at += kThreads) {
    const int channel = at % DEPTH, x = at / DEPTH;
    A number = 0;
    if (channel < p.depth)
      number = widen(
          static_cast<const T*>(from)[tile.pixel(p, i, first + x) * p.depth + channel]);
    to[channel * pitch + x] = number;
  }
}

template <int DEPTH, typename T, typename A>
__device__ __forceinline__ void read_pixel(const Problem& p, const void* from, int64_t pixel,
                                           A (&to)[DEPTH]) {
  const T* source = static_cast<const T*>(from) + pixel * p.depth;
#pragma unroll
  for (int c = 0; c < DEPTH; ++c) to[c] = c < p.depth ? A(widen(source[c])) : A(0);
}

template <int DEPTH, typename T, typename A>
__device__ __forceinline__ void write_pixel(const Problem& p, void* to, int64_t at,
                                            const A (&from)[DEPTH], A scale) {
  T* target = static_cast<T*>(to) + at;
#pragma unroll
  for (int c = 0; c < DEPTH; ++c)
    if (c < p.depth) narrow(from[c] * scale, target[c]);
}

template <int DEPTH, typename A>
__device__ __forceinline__ A product(const A (&x)[DEPTH], const A* shared, int pitch) {
  A sum = 0;
#pragma unroll
  for (int c = 0; c < DEPTH; ++c) sum += x[c] * shared[c * pitch];
  return sum;
}

template <int DEPTH, typename A>
__device__ __forceinline__ void add_scaled(A (&to)[DEPTH], A by, const A* shared, int pitch) {
#pragma unroll
  for (int c = 0; c < DEPTH; ++c) to[c] += by * shared[c * pitch];
}

extern __shared__ __align__(16) unsigned char shared_memory[];

// ---------------------------------------------------------------- forward

template <typename T, int DEPTH>
__global__ void __launch_bounds__(kThreads) forward_kernel(const __grid_constant__ Problem p) {
  typedef typename Accumulator<T>::type A;
  const Tile tile = Tile::of(p);
  if (tile.empty()) return;
  const int pitch = pitch_of(p), table = p.table();
  A* const keys = reinterpret_cast<A*>(shared_memory);
  A* const values = keys + DEPTH * pitch;
  const int top = tile.rows.window(tile.row), left = tile.columns.window(tile.column);
  const int first = tile.columns.window(tile.columns.begin);
  const int count = tile.columns.window(tile.columns.end - 1) + p.kernel - first;
  const int64_t pixel = tile.pixel(p, tile.row, tile.column);
  A query[DEPTH], sum[DEPTH] = {}, largest = lowest(A()), total = 0;
  read_pixel<DEPTH, T>(p, p.query, pixel, query);

  const int end = tile.rows.window(tile.rows.end - 1) + p.kernel;
  for (int i = tile.rows.window(tile.rows.begin); i < end; ++i) {
    __syncthreads();
    fetch_row<DEPTH, T>(p, tile, p.key, i, first, count, pitch, keys);
    fetch_row<DEPTH, T>(p, tile, p.value, i, first, count, pitch, values);
    __syncthreads();
    if (i < top || i >= top + p.kernel) continue;
    const A* bias = static_cast<const A*>(p.bias);
    if (bias)
      bias += (int64_t(tile.head) * table + i - tile.row + p.kernel - 1) * table + left -
              tile.column + p.kernel - 1;
    for (int n = 0; n < p.kernel; ++n) {
      const int x = left + n - first;
      A logit = product<DEPTH>(query, keys + x, pitch) * A(p.scale);
      if (bias) logit += bias[n];
      if (logit > largest) {  // what was added so far was measured from a smaller maximum
        const A shrink = exponential(largest - logit);
        total *= shrink;
#pragma unroll
        for (int c = 0; c < DEPTH; ++c) sum[c] *= shrink;
        largest = logit;
      }
      const A weight = exponential(logit - largest);
      total += weight;
      add_scaled<DEPTH>(sum, weight, values + x, pitch);
    }
  }
  if (!tile.active) return;
  const int64_t batch = tile.plane / p.heads;
  const int64_t place =
      ((batch * p.height + tile.rows.pixel(tile.row)) * p.width + tile.columns.pixel(tile.column)) *
          p.heads + tile.head;
  write_pixel<DEPTH, T>(p, p.output, place * p.depth, sum, A(1) / total);
  static_cast<A*>(p.logsumexp)[pixel] = largest + log(total);
}

// ---------------------------------------------------------------- backward

// A thread is a query: its gradient, and the bias's.
template <typename T, int DEPTH>
__global__ void __launch_bounds__(kThreads) query_kernel(const __grid_constant__ Problem p) {
  typedef typename Accumulator<T>::type A;
  const Tile tile = Tile::of(p);
  if (tile.empty()) return;
  const int pitch = pitch_of(p), table = p.table();
  A* const keys = reinterpret_cast<A*>(shared_memory);
  A* const values = keys + DEPTH * pitch;
  A* const biases = values + DEPTH * pitch;  // this tile's gradient of the bias
  if (p.grad_bias)
    for (int at = threadIdx.x; at < table * table; at += kThreads) biases[at] = 0;
  const int top = tile.rows.window(tile.row), left = tile.columns.window(tile.column);
  const int first = tile.columns.window(tile.columns.begin);
  const int count = tile.columns.window(tile.columns.end - 1) + p.kernel - first;
  const int64_t pixel = tile.pixel(p, tile.row, tile.column);
  A query[DEPTH], grad[DEPTH], sum[DEPTH] = {};
  read_pixel<DEPTH, T>(p, p.query, pixel, query);
  read_pixel<DEPTH, T>(p, p.grad_output, pixel, grad);
  const A logsumexp = static_cast<const A*>(p.logsumexp)[pixel];
  const A delta = static_cast<const A*>(p.delta)[pixel];

  const int end = tile.rows.window(tile.rows.end - 1) + p.kernel;
  for (int i = tile.rows.window(tile.rows.begin); i < end; ++i) {
    __syncthreads();
    fetch_row<DEPTH, T>(p, tile, p.key, i, first, count, pitch, keys);
    fetch_row<DEPTH, T>(p, tile, p.value, i, first, count, pitch, values);
    __syncthreads();
    if (!tile.active || i < top || i >= top + p.kernel) continue;
    const int place = (i - tile.row + p.kernel - 1) * table + left - tile.column + p.kernel - 1;
    const A* bias = static_cast<const A*>(p.bias);
    if (bias) bias += int64_t(tile.head) * table * table + place;
    for (int n = 0; n < p.kernel; ++n) {
      const int x = left + n - first;
      A logit = product<DEPTH>(query, keys + x, pitch) * A(p.scale);
      if (bias) logit += bias[n];
      const A weight = exponential(logit - logsumexp);
      const A slope = weight * (product<DEPTH>(grad, values + x, pitch) - delta);
      add_scaled<DEPTH>(sum, slope, keys + x, pitch);
      if (p.grad_bias) atomicAdd(biases + place + n, slope);
    }
  }
  if (tile.active) write_pixel<DEPTH, T>(p, p.grad_query, pixel * p.depth, sum, A(p.scale));
  if (!p.grad_bias) return;
  __syncthreads();
  A* const to = static_cast<A*>(p.grad_bias) + int64_t(tile.head) * table * table;
  for (int at = threadIdx.x; at < table * table; at += kThreads)
    if (biases[at] != 0) atomicAdd(to + at, biases[at]);
}

// A thread is a key and its value: their gradients, from all queries that look at them.
template <typename T, int DEPTH>
__global__ void __launch_bounds__(kThreads) key_kernel(const __grid_constant__ Problem p) {
  typedef typename Accumulator<T>::type A;
  const Tile tile = Tile::of(p);
  if (tile.empty()) return;
  const int pitch = pitch_of(p), table = p.table();
  A* const queries = reinterpret_cast<A*>(shared_memory);
  A* const grads = queries + DEPTH * pitch;
  A* const logsumexps = grads + DEPTH * pitch;
  A* const deltas = logsumexps + pitch;
  const int top = tile.rows.first_query(tile.row), bottom = tile.rows.last_query(tile.row);
  const int left = tile.columns.first_query(tile.column);
  const int right = tile.columns.last_query(tile.column);
  const int first = tile.columns.first_query(tile.columns.begin);
  const int count = tile.columns.last_query(tile.columns.end - 1) + 1 - first;
  const int64_t pixel = tile.pixel(p, tile.row, tile.column);
  A key[DEPTH], value[DEPTH], grad_key[DEPTH] = {}, grad_value[DEPTH] = {};
  read_pixel<DEPTH, T>(p, p.key, pixel, key);
  read_pixel<DEPTH, T>(p, p.value, pixel, value);

  const int end = tile.rows.last_query(tile.rows.end - 1);
  for (int i = tile.rows.first_query(tile.rows.begin); i <= end; ++i) {
    __syncthreads();
    fetch_row<DEPTH, T>(p, tile, p.query, i, first, count, pitch, queries);
    fetch_row<DEPTH, T>(p, tile, p.grad_output, i, first, count, pitch, grads);
    for (int x = threadIdx.x; x < count; x += kThreads) {
      const int64_t at = tile.pixel(p, i, first + x);
      logsumexps[x] = static_cast<const A*>(p.logsumexp)[at];
      deltas[x] = static_cast<const A*>(p.delta)[at];
    }
    __syncthreads();
    if (!tile.active || i < top || i > bottom) continue;
    const A* bias = static_cast<const A*>(p.bias);
    if (bias)
      bias += (int64_t(tile.head) * table + tile.row - i + p.kernel - 1) * table + tile.column +
              p.kernel - 1;
    for (int j = left; j <= right; ++j) {
      const int x = j - first;
      A logit = product<DEPTH>(key, queries + x, pitch) * A(p.scale);
      if (bias) logit += bias[-j];
      const A weight = exponential(logit - logsumexps[x]);
      const A slope = weight * (product<DEPTH>(value, grads + x, pitch) - deltas[x]);
      add_scaled<DEPTH>(grad_value, weight, grads + x, pitch);
      add_scaled<DEPTH>(grad_key, slope, queries + x, pitch);
    }
  }
  if (!tile.active) return;
  write_pixel<DEPTH, T>(p, p.grad_key, pixel * p.depth, grad_key, A(p.scale));
  write_pixel<DEPTH, T>(p, p.grad_value, pixel * p.depth, grad_value, A(1));
}
