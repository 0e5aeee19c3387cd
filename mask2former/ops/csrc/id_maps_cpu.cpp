// Maps of segment ids on the CPU: a plain C interface, free of torch.
//
// Built by build_ops.py, or by hand:
//   g++ -O3 -std=c++17 -fPIC -shared id_maps_cpu.cpp -o libid_maps_cpu.so
//
// A panoptic PNG's filters are undone; pairs of labels of two maps are counted.
// Segments are large areas of one colour. So neighbouring pixels are mostly equal and most of what a
// PNG's filters leave is zero; both are looked at eight pixels at a time. One thread: evaluation has
// several images in hand.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace {

constexpr int64_t block = 8;  // pixels

// Where there is another order this file does not compile, and Python does the work.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte of a word is its lowest");

// A pixel's three bytes, the first one lowest (R + 256 G + 256^2 B on any machine).
uint32_t pixel(const uint8_t* bytes) {
  return bytes[0] | uint32_t(bytes[1]) << 8 | uint32_t(bytes[2]) << 16;
}

bool is_zero(const uint8_t* bytes) {  // of a block
  uint64_t words[3];
  static_assert(sizeof(words) == 3 * block, "a block of pixels is three words");
  std::memcpy(words, bytes, sizeof(words));
  return !(words[0] | words[1] | words[2]);
}

bool all_equal(const uint32_t* pixels, uint32_t value) {  // of a block
  uint32_t differences = 0;
  for (int64_t i = 0; i < block; ++i) differences |= pixels[i] ^ value;
  return !differences;
}

uint32_t add_bytes(uint32_t x, uint32_t y) {  // without carries from byte to byte
  return ((x & 0x7f7f7f) + (y & 0x7f7f7f)) ^ ((x ^ y) & 0x808080);
}

uint32_t average_bytes(uint32_t x, uint32_t y) { return (x & y) + (((x ^ y) & 0xfefefe) >> 1); }

int magnitude(int value) { return value < 0 ? -value : value; }

// Section 9.4 of the PNG specification, byte by byte.
uint32_t paeth(uint32_t left, uint32_t above, uint32_t corner) {
  if (above == corner) return left;
  if (left == corner) return above;
  uint32_t best = 0;
  for (int shift = 0; shift < 24; shift += 8) {
    const int a = left >> shift & 255, b = above >> shift & 255, c = corner >> shift & 255;
    const int to_a = magnitude(b - c), to_b = magnitude(a - c), to_c = magnitude(a + b - 2 * c);
    const int chosen = to_a <= to_b && to_a <= to_c ? a : to_b <= to_c ? b : c;
    best |= uint32_t(chosen) << shift;
  }
  return best;
}

// One row: `predict(left, above, corner)` is what the filter added `rest` to; `shortcut(at, left,
// corner)` fills a block of which nothing is left, if it can.
template <typename Predict, typename Shortcut>
void add_predictions(const uint8_t* rest, const uint32_t* above, int64_t width, uint32_t* row,
                     Predict predict, Shortcut shortcut) {
  uint32_t left = 0, corner = 0;
  for (int64_t x = 0; x < width;) {
    int64_t end = std::min(x + block, width);
    if (end - x == block && is_zero(rest + 3 * x) && shortcut(x, left, corner)) {
      x = end;
      left = row[x - 1];
      corner = above[x - 1];
      continue;
    }
    for (; x < end; ++x) {
      left = row[x] = add_bytes(predict(left, above[x], corner), pixel(rest + 3 * x));
      corner = above[x];
    }
  }
}

// False: there is no such filter.
bool undo_filter(int filter, const uint8_t* rest, const uint32_t* above, int64_t width,
                 uint32_t* row) {
  const auto copy = [=](int64_t x) {
    std::memcpy(row + x, above + x, block * sizeof(*row));
    return true;
  };
  const auto fill = [=](int64_t x, uint32_t value) {
    std::fill(row + x, row + x + block, value);
    return true;
  };
  switch (filter) {
    case 0:  // None
      add_predictions(
          rest, above, width, row, [](uint32_t, uint32_t, uint32_t) { return 0u; },
          [=](int64_t x, uint32_t, uint32_t) { return fill(x, 0); });
      return true;
    case 1:  // Sub
      add_predictions(
          rest, above, width, row, [](uint32_t left, uint32_t, uint32_t) { return left; },
          [=](int64_t x, uint32_t left, uint32_t) { return fill(x, left); });
      return true;
    case 2:  // Up
      add_predictions(
          rest, above, width, row, [](uint32_t, uint32_t up, uint32_t) { return up; },
          [=](int64_t x, uint32_t, uint32_t) { return copy(x); });
      return true;
    case 3:  // Average
      add_predictions(
          rest, above, width, row,
          [](uint32_t left, uint32_t up, uint32_t) { return average_bytes(left, up); },
          [](int64_t, uint32_t, uint32_t) { return false; });
      return true;
    case 4:  // Paeth: what equals the row above goes on doing so, and so does what it has on its left
      add_predictions(rest, above, width, row, paeth,
                      [=](int64_t x, uint32_t left, uint32_t corner) {
                        if (left == corner) return copy(x);
                        return all_equal(above + x, corner) && fill(x, left);
                      });
      return true;
    default:
      return false;
  }
}

// Pairs of labels, and how often each was met: open addressing, never full.
class Counts {
 public:
  explicit Counts(int64_t capacity) : capacity_(capacity) {
    int64_t slots = 2;
    while (slots < 2 * capacity) slots *= 2;
    slots_.assign(slots, -1);
  }

  // False: there are more pairs than the capacity.
  bool add(uint64_t pair, int64_t pixels) {
    const uint64_t mask = slots_.size() - 1;
    for (uint64_t at = (pair * 0x9E3779B97F4A7C15u) >> 32 & mask;; at = (at + 1) & mask) {
      if (slots_[at] < 0) {
        if (int64_t(entries_.size()) == capacity_) return false;
        slots_[at] = int32_t(entries_.size());
        entries_.push_back({pair, pixels});
        return true;
      }
      Entry& entry = entries_[slots_[at]];
      if (entry.pair == pair) {
        entry.pixels += pixels;
        return true;
      }
    }
  }

  struct Entry {
    uint64_t pair;
    int64_t pixels;
  };

  std::vector<Entry> sorted() && {
    std::sort(entries_.begin(), entries_.end(),
              [](const Entry& x, const Entry& y) { return x.pair < y.pair; });
    return std::move(entries_);
  }

 private:
  int64_t capacity_;
  std::vector<int32_t> slots_;  // which entry lies there, or -1
  std::vector<Entry> entries_;
};

}  // namespace

// The caller has checked the sizes.
extern "C" {

int mask2former_cpu_abi() { return 2; }

// rows: [height, 1 + 3 width], a PNG's rows of 8 bit RGB, each with its filter in front.
// 0, and -1 where a filter does not exist.
int id_maps_cpu_undo_filters(int64_t height, int64_t width, const uint8_t* rows, uint32_t* ids) {
  const std::vector<uint32_t> nothing(width, 0);
  const uint32_t* above = nothing.data();
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* row = rows + y * (1 + 3 * width);
    if (!undo_filter(row[0], row + 1, above, width, ids)) return -1;
    above = ids;
    ids += width;
  }
  return 0;
}

// areas: [3, capacity], filled with labels of `a`, labels of `b` and pixels, sorted by pair.
// The number of pairs, and -1 where that would be more than the capacity.
int id_maps_cpu_joint_areas(int64_t pixels, int64_t capacity, const uint32_t* a, const uint32_t* b,
                            int64_t* areas) {
  Counts counts(capacity);
  int64_t start = 0;  // of a run of equal pairs
  const auto count_until = [&](int64_t end) {
    return counts.add(uint64_t(a[start]) << 32 | b[start], end - start);
  };
  constexpr int64_t length = 64 * block;
  uint8_t changes[length];  // at a pixel that begins a run
  for (int64_t begin = 1; begin < pixels; begin += length) {
    const int64_t size = std::min(length, pixels - begin);
    const uint32_t *own_a = a + begin, *own_b = b + begin;
    for (int64_t i = 0; i < size; ++i)
      changes[i] = ((own_a[i] ^ own_a[i - 1]) | (own_b[i] ^ own_b[i - 1])) != 0;
    std::fill(changes + size, changes + length, 0);
    for (int64_t i = 0; i < size; i += block) {
      uint64_t any;  // a byte a pixel
      std::memcpy(&any, changes + i, block);
      for (; any; any &= any - 1) {
        const int64_t at = begin + i + __builtin_ctzll(any) / 8;
        if (!count_until(at)) return -1;
        start = at;
      }
    }
  }
  if (pixels && !count_until(pixels)) return -1;
  int64_t* of = areas;
  const std::vector<Counts::Entry> sorted = std::move(counts).sorted();
  for (const Counts::Entry& entry : sorted) {
    of[0] = int64_t(entry.pair >> 32);
    of[capacity] = int64_t(entry.pair & 0xffffffffu);
    of[2 * capacity] = entry.pixels;
    ++of;
  }
  return int(sorted.size());
}

}  // extern "C"
