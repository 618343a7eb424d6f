// How a block of threads brings a tile of an operand from global to shared memory, as lanes, transposed to k-major.
//
// A thread holds quads: four entries along the contiguous dimension, raw, from one load of 16, 8 or 4 bytes (float64:
// two of 16); where a quad is ragged, unaligned or strided, four loads. What lies beyond the matrix is -0 in a and +0
// in b: their product -0 leaves every sum as it is, -0 included.
// Shared memory holds entry (outer, k) at column outer ^ swizzle(k) of row k, so that no two lanes of a warp meet in a
// bank: neither those that store four k of a row each, nor those that load along a row.
#pragma once

#include "cuda/lanes.hpp"
#include "executor/kernels.hpp"

namespace gradkern::cuda {

// An operand as a kernel sees it: `outer` rows of a, or columns of b.
struct TileSource {
  const unsigned char* data;
  std::int64_t outer_stride, k_stride;  // in elements
  FormatId format;
  int bytes;  // of an element
  int outer, k;
  bool along_outer;  // the direction of quads
  bool vector;       // quads are contiguous and aligned
  bool to_tfloat32;  // entries are rounded to it
};

inline TileSource tile_source(const executor::Operand& operand, FormatId operands, std::int64_t outer, std::int64_t k,
                              std::int64_t outer_stride, std::int64_t k_stride) {
  TileSource s{};
  s.data = static_cast<const unsigned char*>(operand.data);
  s.outer_stride = outer_stride;
  s.k_stride = k_stride;
  s.format = operand.format;
  s.bytes = static_cast<int>(formats::container_bytes(operand.format));
  s.outer = static_cast<int>(outer);
  s.k = static_cast<int>(k);
  s.along_outer = outer_stride == 1 && k_stride != 1;
  const std::int64_t contiguous = s.along_outer ? outer_stride : k_stride,
                     other = s.along_outer ? k_stride : outer_stride;
  const auto alignment = static_cast<std::uintptr_t>(s.bytes == 8 ? 16 : 4 * s.bytes);
  s.vector = contiguous == 1 && other % 4 == 0 && reinterpret_cast<std::uintptr_t>(operand.data) % alignment == 0;
  s.to_tfloat32 = operands == FormatId::tfloat32 && operand.format != FormatId::tfloat32;
  return s;
}

// Four entries as they are stored; the upper half is used by float64 only.
template <class T>
struct Quad {
  uint4 low, high;
};
template <>
struct Quad<float> {
  uint4 low;
};
template <>
struct Quad<std::uint16_t> {
  uint4 low;
};

// An element of 32 bits or fewer.
__device__ __forceinline__ unsigned load_element(const unsigned char* at, int bytes) {
  if (bytes == 1) return load(at);
  if (bytes == 2) return load(reinterpret_cast<const std::uint16_t*>(at));
  return load(reinterpret_cast<const unsigned*>(at));
}

// The first entry of a thread's quad, and where it goes in shared memory.
struct Cursor {
  const unsigned char* at;
  int outer, k, slot;
};

// Four elements from anywhere, in the words that one load of them would fill; the first `count` lie in the matrix.
template <class T>
__device__ __forceinline__ Quad<T> gather_quad(const TileSource& s, const unsigned char* at, int count, bool negative) {
  const std::int64_t step = (s.along_outer ? s.outer_stride : s.k_stride) * s.bytes;
  Quad<T> q{};
  if constexpr (sizeof(Quad<T>) == 32) {
    if (s.bytes == 8) {
      uint2 e[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) e[i] = i < count ? load_64(at + i * step) : make_uint2(0, negative ? 0x80000000u : 0);
      q.low = make_uint4(e[0].x, e[0].y, e[1].x, e[1].y);
      q.high = make_uint4(e[2].x, e[2].y, e[3].x, e[3].y);
      return q;
    }
  }
  const unsigned padding = negative ? 1u << (8 * s.bytes - 1) : 0;
  unsigned e[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) e[i] = i < count ? load_element(at + i * step, s.bytes) : padding;
  if (s.bytes == 1) {
    q.low.x = e[0] | e[1] << 8 | e[2] << 16 | e[3] << 24;
  } else if (s.bytes == 2) {
    q.low.x = e[0] | e[1] << 16;
    q.low.y = e[2] | e[3] << 16;
  } else {
    q.low = make_uint4(e[0], e[1], e[2], e[3]);
  }
  return q;
}

template <class T>
__device__ __forceinline__ Quad<T> load_quad(const TileSource& s, const Cursor& cursor, bool negative) {
  const int outer_left = s.outer - cursor.outer, k_left = s.k - cursor.k;
  const int count = s.along_outer ? (k_left > 0 ? outer_left : 0) : (outer_left > 0 ? k_left : 0);
  const unsigned char* const at = cursor.at;
  if (!s.vector || count < 4) return gather_quad<T>(s, at, count, negative);
  Quad<T> q{};
  if (s.bytes == 4) {
    q.low = load_128(at);
  } else if (s.bytes == 2) {
    const uint2 half = load_64(at);
    q.low.x = half.x;
    q.low.y = half.y;
  } else if (s.bytes == 1) {
    q.low.x = load(reinterpret_cast<const unsigned*>(at));
  } else if constexpr (sizeof(Quad<T>) == 32) {
    q.low = load_128(at);
    q.high = load_128(at + 16);
  }
  return q;
}

// Entry i of a quad of a format whose elements have 8, 16 or 32 bits, as bits.
template <class F, class T>
__device__ __forceinline__ std::uint32_t quad_bits(const Quad<T>& q, int i) {
  if constexpr (sizeof(typename F::container) == 4) {
    return i == 0 ? q.low.x : i == 1 ? q.low.y : i == 2 ? q.low.z : q.low.w;
  } else if constexpr (sizeof(typename F::container) == 2) {
    return ((i < 2 ? q.low.x : q.low.y) >> 16 * (i % 2)) & 0xFFFFu;
  } else {
    return (q.low.x >> 8 * i) & 0xFFu;
  }
}

template <class Lane>
__device__ __forceinline__ void decode_quad(const TileSource& s, const Quad<typename Lane::type>& q,
                                            typename Lane::type (&lanes)[4]) {
  const auto all = [&](auto f) {
    using F = decltype(f);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      std::uint32_t bits = quad_bits<F>(q, i);
      if constexpr (F::id == FormatId::float32) bits = s.to_tfloat32 ? round_tfloat32(bits) : bits;
      lanes[i] = Lane::template decode<F>(bits);
    }
  };
  switch (s.format) {
    case FormatId::float16:
      return all(formats::float16{});
    case FormatId::bfloat16:
      return all(formats::bfloat16{});
    case FormatId::float8_e4m3fn:
      return all(formats::float8_e4m3fn{});
    case FormatId::float8_e5m2:
      return all(formats::float8_e5m2{});
    case FormatId::float64:
      if constexpr (sizeof(Quad<typename Lane::type>) == 32) {
        const unsigned words[8] = {q.low.x, q.low.y, q.low.z, q.low.w, q.high.x, q.high.y, q.high.z, q.high.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const double x = base::bit_cast<double>(std::uint64_t(words[2 * i + 1]) << 32 | words[2 * i]);
          lanes[i] = s.to_tfloat32 ? ops::round_to_nearest_even<formats::tfloat32>(x) : x;
        }
      }
      return;
    default:
      return all(formats::float32{});  // and tfloat32, in the same words
  }
}

// Of `outer` x `depth` entries, by `threads` threads.
template <class Lane, int outer, int depth, int threads>
struct Tile {
  using T = typename Lane::type;
  static constexpr int quads = outer * depth / 4 / threads;
  static_assert(quads * 4 * threads == outer * depth);
  // The rows that a warp (float64: half of one) stores at once, at least a quad.
  static constexpr int rows = (sizeof(T) == 8 ? 64 : 128) / depth, unit = rows < 4 ? 4 : rows;

  static __device__ __forceinline__ constexpr int swizzle(int k) { return (k / 4 * unit) & (outer - 1); }

  static __device__ __forceinline__ void start(const TileSource& s, int thread, int first, Cursor (&cursors)[quads]) {
#pragma unroll
    for (int i = 0; i < quads; ++i) {
      const int quad = thread + i * threads;
      const int o = s.along_outer ? quad % (outer / 4) * 4 : quad / (depth / 4);
      const int k = s.along_outer ? quad / (outer / 4) : quad % (depth / 4) * 4;
      cursors[i] = {s.data + ((first + o) * s.outer_stride + k * s.k_stride) * s.bytes, first + o, k,
                    k * outer + (o ^ swizzle(k))};
    }
  }

  // The quads of this tile, and on to the next.
  static __device__ __forceinline__ void fetch(const TileSource& s, bool negative, Cursor (&cursors)[quads],
                                               Quad<T> (&held)[quads]) {
#pragma unroll
    for (int i = 0; i < quads; ++i) {
      held[i] = load_quad<T>(s, cursors[i], negative);
      cursors[i].at += depth * s.k_stride * s.bytes;
      cursors[i].k += depth;
    }
  }

  static __device__ __forceinline__ void keep(const TileSource& s, const Cursor (&cursors)[quads],
                                              const Quad<T> (&held)[quads], T* shared) {
#pragma unroll
    for (int i = 0; i < quads; ++i) {
      T* const to = shared + cursors[i].slot;
      T lanes[4];
      decode_quad<Lane>(s, held[i], lanes);
      if (s.along_outer) {
        store_lanes(to, lanes);
      } else {  // four k of a row: one column of four rows
#pragma unroll
        for (int e = 0; e < 4; ++e) store(to + e * outer, lanes[e]);
      }
    }
  }

  static __device__ __forceinline__ void store_lanes(T* to, const T (&x)[4]) {
    if constexpr (sizeof(T) == 8) {
      store_128(to, base::bit_cast<uint4>(double2{x[0], x[1]}));
      store_128(to + 2, base::bit_cast<uint4>(double2{x[2], x[3]}));
    } else if constexpr (sizeof(T) == 4) {
      store_128(to, base::bit_cast<uint4>(float4{x[0], x[1], x[2], x[3]}));
    } else {
      store_64(to, make_uint2(x[0] | unsigned(x[1]) << 16, x[2] | unsigned(x[3]) << 16));
    }
  }

  // `count` (1 or 4) neighbours of row 4 * quad + k, from o + apart on: one swizzled address for four k and every apart.
  template <int count>
  static __device__ __forceinline__ void read(const T* shared, int quad, int k, int o, int apart, T* lanes) {
    const T* from = shared + 4 * quad * outer + (o ^ swizzle(4 * quad)) + k * outer + apart;
    if constexpr (count == 1) {
      lanes[0] = load(from);
    } else if constexpr (sizeof(T) == 8) {
      const auto low = base::bit_cast<double2>(load_128(from)), high = base::bit_cast<double2>(load_128(from + 2));
      lanes[0] = low.x, lanes[1] = low.y, lanes[2] = high.x, lanes[3] = high.y;
    } else if constexpr (sizeof(T) == 4) {
      const auto four = base::bit_cast<float4>(load_128(from));
      lanes[0] = four.x, lanes[1] = four.y, lanes[2] = four.z, lanes[3] = four.w;
    } else {
      const uint2 four = load_64(from);
#pragma unroll
      for (int i = 0; i < 4; ++i) lanes[i] = static_cast<T>((i < 2 ? four.x : four.y) >> 16 * (i % 2));
    }
  }
};

}  // namespace gradkern::cuda
