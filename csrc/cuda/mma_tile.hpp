// How a tile of an operand of a matrix unit lies in shared memory, how it comes there, and how warps take it out.
//
// A tile is `outer` rows of a (columns of b) by 64 bytes of k, in chunks of 16 bytes. Where k is contiguous in memory,
// it is in shared memory: 64 bytes a row, read by ldmatrix. Where the rows are (along_outer), a line of shared memory is
// one k: 16-bit operands are read by ldmatrix.trans, 32-bit ones word by word. So that the eight rows of an ldmatrix, and
// the words of a fragment, lie in different banks, short lines have their chunks swizzled and long ones are padded by
// eight entries.
// Beyond the matrix are zeros, which no unit's step sees (mma/model.hpp).
#pragma once

#include "cuda/lanes.hpp"
#include "executor/kernels.hpp"
#include "formats/encode.hpp"

namespace gradkern::cuda {

// copy: by cp.async, 16 aligned bytes a time. gather: entry by entry. convert: also to the unit's format.
enum class Fill : int { copy, gather, convert };

struct MmaSource {
  const unsigned char* data;
  std::int64_t outer_stride, k_stride;  // in elements
  FormatId format;
  int outer, k;
  Fill fill;
  bool along_outer;             // which direction is contiguous
  std::int64_t apart, advance;  // bytes between the chunks that a thread copies, and from one tile to the next
};

template <class F, int outer_, int threads, bool along_outer>
struct MmaTile {
  static constexpr int outer = outer_, element = sizeof(typename F::container), depth = 64 / element;
  static constexpr int in_chunk = 16 / element;
  static constexpr int line_chunks = along_outer ? outer * element / 16 : 4;
  static constexpr int chunks = outer * 4 / threads;  // a thread's
  static_assert(!along_outer || element > 1);

  static constexpr int lines = along_outer ? depth : outer;
  static constexpr int line_bytes = along_outer ? (outer + 8) * element : 64, bytes = lines * line_bytes;
  static constexpr int slots = threads / line_chunks * line_bytes;  // from a thread's chunk to its next

  static __device__ __forceinline__ int address(int line, int chunk) {
    return line * line_bytes + (along_outer ? chunk : chunk ^ (line >> 1 & 3)) * 16;
  }

  // What a thread copies: chunks number thread + i * threads, a fixed number of lines apart. left: bytes of k from the
  // first to the end; lines, along_outer. width: how many bytes of a chunk lie in the matrix, as far as `outer` says.
  static constexpr int lines_apart = threads / line_chunks, widths = along_outer ? 1 : chunks;
  struct Cursor {
    const unsigned char* at;
    int left, slot, width[widths];
  };

  // Of constants of a launch a kernel keeps none in registers.
  static void prepare(MmaSource& s) {
    const std::int64_t line_stride = (along_outer ? s.k_stride : s.outer_stride) * element;
    s.apart = lines_apart * line_stride;
    s.advance = along_outer ? depth * line_stride : 64;
  }

  static __device__ __forceinline__ void start(const MmaSource& s, int thread, int first, Cursor& cursor) {
    const int line = thread / line_chunks, chunk = thread % line_chunks;
    cursor.slot = address(line, chunk);  // its swizzle is that of the thread's other chunks
    if constexpr (along_outer) {
      const int o = first + chunk * in_chunk;
      cursor.at = s.data + (line * s.k_stride + o) * element;
      cursor.left = s.k - line;
      cursor.width[0] = max(0, min(16, (s.outer - o) * element));
    } else {
      cursor.at = s.data + ((first + line) * s.outer_stride + chunk * in_chunk) * element;
      cursor.left = (s.k - chunk * in_chunk) * element;
#pragma unroll
      for (int i = 0; i < chunks; ++i) cursor.width[i] = first + line + i * lines_apart < s.outer ? 16 : 0;
    }
  }

  static __device__ __forceinline__ void copy(const MmaSource& s, Cursor& cursor, unsigned char* shared) {
#pragma unroll
    for (int i = 0; i < chunks; ++i) {
      const int size = along_outer ? (cursor.left > i * lines_apart ? cursor.width[0] : 0)
                                   : max(0, min(cursor.width[i % widths], cursor.left));
      cp_async_16(shared + cursor.slot + i * slots, cursor.at + i * s.apart, static_cast<unsigned>(size));
    }
    cursor.at += s.advance;
    cursor.left -= along_outer ? depth : 64;
  }

  // Every entry of the tile that begins at (first, first_k), one by one.
  static __device__ __forceinline__ void gather(const MmaSource& s, int thread, int first, int first_k,
                                                unsigned char* shared) {
    static_assert(!along_outer);
    using Bits = typename F::container;
#pragma unroll 1
    for (int id = thread; id < outer * 4; id += threads) {
      const int row = s.along_outer ? id % outer : id / 4, chunk = s.along_outer ? id / outer : id % 4;
      const int o = first + row, k = first_k + chunk * in_chunk, count = o < s.outer ? s.k - k : 0;
      const std::int64_t index = o * s.outer_stride + k * s.k_stride;
      std::uint64_t words[2] = {0, 0};
      if (s.fill == Fill::convert) {
#pragma unroll 1
        for (int e = 0; e < in_chunk; ++e) {  // each comes in at the top
          const std::uint64_t bits = e < count ? converted(s, index + e * s.k_stride) : 0;
          constexpr int width = 8 * element;
          words[0] = words[0] >> width | words[1] << (64 - width);
          words[1] = words[1] >> width | bits << (64 - width);
        }
      } else {
        const Bits* const from = reinterpret_cast<const Bits*>(s.data) + index;
        Bits bits[in_chunk];
#pragma unroll
        for (int e = 0; e < in_chunk; ++e) bits[e] = e < count ? load(from + e * s.k_stride) : Bits(0);
#pragma unroll
        for (int e = 0; e < in_chunk; ++e)
          words[e * element / 8] |= static_cast<std::uint64_t>(bits[e]) << (8 * (e * element % 8));
      }
      store_128(shared + address(row, chunk), base::bit_cast<uint4>(ulonglong2{words[0], words[1]}));
    }
  }

  static __device__ __forceinline__ std::uint64_t converted(const MmaSource& s, std::int64_t index) {
    return formats::encode<F>(load_value<double>(s.format, s.data, index), formats::Mode{}, 0).bits;
  }

  // float32 that this thread copied, to tfloat32.
  static __device__ __forceinline__ void round(const Cursor& cursor, unsigned char* shared) {
#pragma unroll
    for (int i = 0; i < chunks; ++i) {
      unsigned char* const at = shared + cursor.slot + i * slots;
      const uint4 x = load_128(at);
      store_128(at, make_uint4(round_for_unit(x.x), round_for_unit(x.y), round_for_unit(x.z), round_for_unit(x.w)));
    }
  }

  // Registers of rows o .. o+15 and 32 bytes of k, number `step`, as mma.sync wants a: two matrices of 8 rows, then the
  // same at the next 16 bytes. For b the other way round: both chunks of 8 columns, then those of the next 8.
  template <bool is_a>
  static __device__ __forceinline__ void fragment(const unsigned char* shared, int o, int step, int lane,
                                                  std::uint32_t (&r)[4]) {
    const int row_half = is_a ? lane / 8 & 1 : lane / 16, k_half = is_a ? lane / 16 : lane / 8 & 1;
    if constexpr (!along_outer) {
      ldmatrix_x4(r, shared + address(o + lane % 8 + 8 * row_half, 2 * step + k_half));
    } else if constexpr (element == 2) {
      ldmatrix_x4_trans(r, shared + address(16 * step + lane % 8 + 8 * k_half, o / 8 + row_half));
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = o + lane / 4 + 8 * (is_a ? i & 1 : i >> 1),
                  k = 8 * step + lane % 4 + 4 * (is_a ? i >> 1 : i & 1);
        r[i] = load(reinterpret_cast<const std::uint32_t*>(shared + k * line_bytes + row * 4));
      }
    }
  }
};

}  // namespace gradkern::cuda
