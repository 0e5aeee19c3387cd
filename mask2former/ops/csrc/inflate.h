// Decompresses zlib streams (RFC 1950 and 1951) whose size is known, all at once.
//
// Several times as fast as zlib where most of the data repeats, as in PNGs of large areas: repeats
// are copied eight bytes at a time or more, and nothing waits for the next piece. It gives up (false)
// on whatever is not sound, and reads and writes nothing outside of what it was given. To be included
// inside the unnamed namespace of a library; little-endian, which the library checks.

// Bits of a stream, the lowest first. Behind its end zeros follow, which must not be used.
class Bits {
 public:
  Bits(const uint8_t* data, const uint8_t* end) : next_(data), end_(end) {}

  // At least 56 bits can be taken afterwards: any symbol with all that belongs to it.
  void fill() {
    if (end_ - next_ >= 8) {
      uint64_t word;
      std::memcpy(&word, next_, 8);
      bits_ |= word << count_;
      next_ += (63 - count_) >> 3;
      count_ |= 56;
      return;
    }
    for (; count_ <= 56; count_ += 8) {
      if (next_ < end_)
        bits_ |= uint64_t(*next_++) << count_;
      else
        ++missing_;
    }
  }

  uint32_t peek(int count) const { return uint32_t(bits_ & ((uint64_t(1) << count) - 1)); }

  void drop(int count) {
    bits_ >>= count;
    count_ -= count;
  }

  uint32_t take(int count) {
    const uint32_t value = peek(count);
    drop(count);
    return value;
  }

  // Whether more was taken than there was.
  bool is_overdrawn() const { return 8 * missing_ > count_; }

  // What follows, from the next whole byte on; without what was read ahead.
  const uint8_t* rest() {
    drop(count_ & 7);
    next_ -= count_ / 8 - missing_;
    bits_ = count_ = missing_ = 0;
    return next_;
  }

  int64_t remaining() const { return end_ - next_; }  // after rest()

  void skip(int64_t bytes) { next_ += bytes; }

 private:
  const uint8_t *next_, *end_;
  uint64_t bits_ = 0;
  int64_t count_ = 0, missing_ = 0;
};

// A canonical Huffman code: short words are looked up, the few longer ones counted out.
class Code {
 public:
  // False: no such code, as zlib sees it. Incomplete ones are sound with a single word of one bit, and
  // empty ones where nothing uses them.
  bool build(const uint8_t* lengths, int symbols, bool may_be_incomplete) {
    std::fill(count_, count_ + 16, 0);
    for (int s = 0; s < symbols; ++s) ++count_[lengths[s]];
    count_[0] = 0;
    int left = 1, longest = 0;
    uint16_t offsets[16] = {}, words[16] = {};
    for (int length = 1; length < 16; ++length) {
      left = 2 * left - count_[length];
      if (left < 0) return false;
      if (count_[length]) longest = length;
      offsets[length] = offsets[length - 1] + count_[length - 1];
      words[length] = (words[length - 1] + count_[length - 1]) << 1;
    }
    if (left > 0 && !(may_be_incomplete && longest <= 1)) return false;
    std::fill(quick_, quick_ + (1 << quick_bits), 0);
    for (int s = 0; s < symbols; ++s) {
      const int length = lengths[s];
      if (!length) continue;
      symbols_[offsets[length]++] = s;
      const int word = words[length]++;
      if (length > quick_bits) continue;
      int reversed = 0;  // words come highest bit first
      for (int bit = 0; bit < length; ++bit) reversed |= (word >> bit & 1) << (length - 1 - bit);
      for (int at = reversed; at < 1 << quick_bits; at += 1 << length)
        quick_[at] = length << 9 | s;
    }
    return true;
  }

  // -1: no such word.
  int next(Bits& bits) const {
    const uint32_t entry = quick_[bits.peek(quick_bits)];
    if (entry) {
      bits.drop(entry >> 9);
      return entry & 511;
    }
    int word = 0, first = 0, index = 0;
    const uint32_t following = bits.peek(15);
    for (int length = 1; length < 16; ++length) {
      word |= following >> (length - 1) & 1;
      if (word - count_[length] < first) {
        bits.drop(length);
        return symbols_[index + word - first];
      }
      index += count_[length];
      first = (first + count_[length]) << 1;
      word <<= 1;
    }
    return -1;
  }

 private:
  static constexpr int quick_bits = 10;
  uint16_t quick_[1 << quick_bits];  // length and symbol; 0: none
  uint16_t symbols_[288];
  int count_[16];
};

// Repeats what lies `distance` behind; at least `length` bytes of room.
void repeat(uint8_t* out, int64_t distance, int64_t length, int64_t room) {
  if (distance == 1) {
    std::memset(out, out[-1], length);
  } else if (distance >= 8 && room >= length + 8) {
    for (int64_t i = 0; i < length; i += 8) std::memcpy(out + i, out + i - distance, 8);
  } else {
    for (int64_t i = 0; i < length; ++i) out[i] = out[i - distance];
  }
}

class Inflater {
 public:
  Inflater(const uint8_t* data, int64_t size, uint8_t* output, int64_t output_size)
      : bits_(data, data + size), begin_(output), out_(output), end_(output + output_size) {}

  // Whether that was one sound stream of exactly the output's size, and nothing else.
  bool run() {
    bits_.fill();
    const uint32_t method = bits_.take(8), flags = bits_.take(8);
    if ((method & 15) != 8 || method >> 4 > 7 || flags & 32 || (method << 8 | flags) % 31)
      return false;
    window_ = int64_t(1) << (8 + (method >> 4));
    for (bool is_last = false; !is_last;) {
      bits_.fill();
      is_last = bits_.take(1);
      const uint32_t kind = bits_.take(2);
      if (!(kind == 0 ? stored() : kind == 1 ? fixed() : kind == 2 && dynamic())) return false;
      if (bits_.is_overdrawn()) return false;
    }
    const uint8_t* sum = bits_.rest();
    if (bits_.remaining() != 4 || out_ != end_) return false;
    return adler32() == (uint32_t(sum[0]) << 24 | sum[1] << 16 | sum[2] << 8 | sum[3]);
  }

 private:
  bool stored() {
    const uint8_t* from = bits_.rest();
    if (bits_.remaining() < 4) return false;
    const int64_t length = from[0] | from[1] << 8;
    if (length != (~(from[2] | from[3] << 8) & 0xffff)) return false;
    if (bits_.remaining() - 4 < length || end_ - out_ < length) return false;
    std::memcpy(out_, from + 4, length);
    out_ += length;
    bits_.skip(4 + length);
    return true;
  }

  bool fixed() {
    uint8_t lengths[288];
    for (int s = 0; s < 288; ++s) lengths[s] = s < 144 ? 8 : s < 256 ? 9 : s < 280 ? 7 : 8;
    literals_.build(lengths, 288, false);
    std::fill(lengths, lengths + 32, 5);
    distances_.build(lengths, 32, false);
    return symbols();
  }

  bool dynamic() {
    constexpr uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    const int literals = bits_.take(5) + 257, distances = bits_.take(5) + 1;
    const int given = bits_.take(4) + 4;
    if (literals > 286 || distances > 30) return false;
    uint8_t lengths[286 + 30] = {};
    for (int i = 0; i < given; ++i) {
      bits_.fill();
      lengths[order[i]] = bits_.take(3);
    }
    if (!literals_.build(lengths, 19, false)) return false;  // for the code of the lengths at first
    std::fill(lengths, lengths + 19, 0);
    for (int at = 0; at < literals + distances;) {
      bits_.fill();
      const int symbol = literals_.next(bits_);
      if (symbol < 0 || bits_.is_overdrawn()) return false;
      if (symbol < 16) {
        lengths[at++] = symbol;
        continue;
      }
      if (symbol == 16 && !at) return false;
      const uint8_t value = symbol == 16 ? lengths[at - 1] : 0;
      const int times = symbol == 16   ? 3 + bits_.take(2)
                        : symbol == 17 ? 3 + bits_.take(3)
                                       : 11 + bits_.take(7);
      if (at + times > literals + distances) return false;
      std::fill(lengths + at, lengths + at + times, value);
      at += times;
    }
    return lengths[256] && literals_.build(lengths, literals, true) &&
           distances_.build(lengths + literals, distances, true) && symbols();
  }

  bool symbols() {
    constexpr int16_t length_base[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                         31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    constexpr int8_t length_bits[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                        2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    while (true) {
      bits_.fill();
      const int symbol = literals_.next(bits_);
      if (symbol < 256) {
        if (symbol < 0 || out_ == end_) return false;
        *out_++ = symbol;
        continue;
      }
      if (symbol == 256) return true;
      if (symbol > 285) return false;
      const int64_t length = length_base[symbol - 257] + bits_.take(length_bits[symbol - 257]);
      const int coded = distances_.next(bits_);
      if (coded < 0 || coded > 29) return false;
      const int more = coded < 4 ? 0 : coded / 2 - 1;  // bits
      const int64_t base = coded < 4 ? 1 + coded : 1 + (int64_t(2 + coded % 2) << more);
      const int64_t distance = base + bits_.take(more);
      if (length > end_ - out_ || distance > out_ - begin_ || distance > window_) return false;
      repeat(out_, distance, length, end_ - out_);
      out_ += length;
    }
  }

  // Columns of bytes side by side, each with the sum of its sums: as many rounds as 16 bits hold.
  uint32_t adler32() const {
    constexpr int lanes = 32, rounds = 22;
    static_assert(255 * rounds * (rounds - 1) / 2 < 1 << 16, "sums of sums do not overflow");
    constexpr uint32_t modulus = 65521;
    uint64_t low = 1, high = 0;
    const uint8_t* at = begin_;
    while (end_ - at >= lanes) {
      const int64_t count = std::min<int64_t>(rounds, (end_ - at) / lanes);
      uint16_t sums[lanes] = {}, before[lanes] = {};
      for (int64_t r = 0; r < count; ++r, at += lanes)
        for (int i = 0; i < lanes; ++i) {
          before[i] += sums[i];
          sums[i] += at[i];
        }
      high += low * lanes * count;
      for (int i = 0; i < lanes; ++i) {
        high += uint64_t(lanes) * before[i] + uint64_t(lanes - i) * sums[i];
        low += sums[i];
      }
      low %= modulus;
      high %= modulus;
    }
    for (; at < end_; ++at) high += low += *at;
    return uint32_t(high % modulus << 16 | low % modulus);
  }

  Bits bits_;
  uint8_t *const begin_, *out_, *const end_;
  int64_t window_ = 0;
  Code literals_, distances_;
};
