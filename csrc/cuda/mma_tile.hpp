// How a tile of an operand of a matrix unit lies in shared memory, how it comes there, and how warps take it out.
//
// A tile is `outer` rows of a (columns of b) by 64 bytes of k, in chunks of 16 bytes. Where k is contiguous in memory,
// it is in shared memory: 64 bytes a row, read by ldmatrix. Where the rows are, a line of shared memory is one k, read by
// ldmatrix.trans, of 16-bit operands. So that the eight rows of an ldmatrix lie in different banks, short lines have their
// chunks swizzled and long ones are padded by a chunk. What is packed (mma_pack.hpp) lies as it is read, here as in memory.
// Beyond the end of k are zeros, which no unit's step sees (mma/model.hpp); beyond the last row, that row again.
#pragma once

#include "cuda/mma_pack.hpp"

namespace gradkern::cuda {

// What is contiguous in memory; all but packed tiles are copied 16 aligned bytes a time, which belong to the matrix.
enum class MmaLines : int { k, outer, packed };

struct MmaSource {
  const unsigned char* data;
  std::int64_t outer_stride, k_stride;  // in elements
  int outer, k;
  std::int64_t apart, advance;  // bytes: lines of k that a thread copies, and from tile to tile; packed: rows of tiles
};

template <class F, int outer_, int threads, MmaLines along>
struct MmaTile {
  static constexpr int outer = outer_, element = sizeof(typename F::container), depth = 64 / element;
  static constexpr bool along_outer = along == MmaLines::outer, packed = along == MmaLines::packed;
  static constexpr int in_chunk = 16 / element;
  static constexpr int line_chunks = along_outer ? outer * element / 16 : 4;
  static constexpr int chunks = outer * 4 / threads;  // a thread's, lines_apart lines from one to the next
  static constexpr int lines_apart = threads / line_chunks;
  static_assert(!along_outer || element == 2);

  static constexpr int lines = along_outer ? depth : outer;
  static constexpr int line_bytes = along_outer ? outer * element + 16 : 64, bytes = lines * line_bytes;
  static constexpr int slots = packed ? 512 : lines_apart * line_bytes;  // from a thread's chunk to its next
  static __device__ __forceinline__ int address(int line, int chunk) {
    return line * line_bytes + (along_outer ? chunk : chunk ^ (line >> 1 & 3)) * 16;
  }

  // What a thread copies next. left: entries of k from the first one on.
  static constexpr int pointers = along == MmaLines::k ? chunks : 1;
  struct Cursor {
    const unsigned char* at[pointers];
    int left, slot;
  };

  // A warp copies what is packed in one piece.
  static __device__ __forceinline__ unsigned packed_slot() {
    const unsigned thread = static_cast<unsigned>(thread_anew());
    return thread / 32 * (chunks * slots) + thread % 32 * 16;
  }

  // Of constants of a launch a kernel keeps none in registers.
  static void prepare(MmaSource& s) {
    s.apart = packed ? packed_tiles(s.k, depth) * bytes : lines_apart * s.k_stride * element;
    s.advance = depth * s.k_stride * element;
  }

  static __device__ __forceinline__ void start(const MmaSource& s, int thread, int first, Cursor& cursor) {
    const int line = thread / line_chunks, chunk = thread % line_chunks;
    cursor.left = s.k - (packed ? 0 : along_outer ? line : chunk * in_chunk);
    cursor.slot = packed ? static_cast<int>(packed_slot()) : address(line, chunk);  // swizzled as the thread's others
    if constexpr (packed) {
      cursor.at[0] = s.data + first / outer * s.apart + cursor.slot;
    } else if constexpr (along_outer) {
      cursor.at[0] = s.data + (line * s.k_stride + min(first + chunk * in_chunk, s.outer - in_chunk)) * element;
    } else {
#pragma unroll
      for (int i = 0; i < chunks; ++i)
        cursor.at[i] =
            s.data + (min(first + line + i * lines_apart, s.outer - 1) * s.outer_stride + chunk * in_chunk) * element;
    }
  }

  static __device__ __forceinline__ void copy(const MmaSource& s, Cursor& cursor, int tile, unsigned char* shared) {
    if constexpr (packed) {
      const unsigned char* const from = cursor.at[0] + std::int64_t(tile) * bytes;
#pragma unroll
      for (int i = 0; i < chunks; ++i) cp_async_16(shared + packed_slot() + i * slots, from + i * slots);
    } else {
#pragma unroll
      for (int i = 0; i < chunks; ++i)
        cp_async_16_or_zero(shared + cursor.slot + i * slots,
                            along_outer ? cursor.at[0] + i * s.apart : cursor.at[i % pointers],
                            cursor.left > (along_outer ? i * lines_apart : 0));
#pragma unroll
      for (int i = 0; i < pointers; ++i) cursor.at[i] += along_outer ? s.advance : 64;
      cursor.left -= depth;
    }
  }

  // Where a lane reads: its line of an ldmatrix of 16 rows from o on and 32 bytes of k. Swizzled, each 32 bytes lie
  // elsewhere.
  static constexpr int readers = along == MmaLines::k ? 2 : 1;
  struct Reader {
    int from[readers];
  };

  // Of four matrices of 8 rows and 16 bytes, those of a go down the rows first, those of b along k.
  template <bool is_a>
  static __device__ __forceinline__ Reader reader(int o, int lane) {
    const int row = lane % 8 + 8 * (is_a ? lane / 8 & 1 : lane / 16), k_half = is_a ? lane / 16 : lane / 8 & 1;
    Reader reader;
#pragma unroll
    for (int step = 0; step < readers; ++step)
      reader.from[step] = kept(packed        ? o * 64 + lane * 16
                               : along_outer ? address(lane % 8 + 8 * k_half, (o + row) / 8)
                                             : address(o + row, 2 * step + k_half));
    return reader;
  }

  static __device__ __forceinline__ void read(const unsigned char* shared, const Reader& reader, int further, int step,
                                              std::uint32_t (&r)[4]) {
    if constexpr (packed) {
      ldmatrix_x4(r, shared + reader.from[0] + (further * 64 + step * 512));
    } else if constexpr (along_outer) {
      ldmatrix_x4_trans(r, shared + reader.from[0] + (further * element + step * 16 * line_bytes));
    } else {
      ldmatrix_x4(r, shared + reader.from[step] + further * 64);
    }
  }

  // The registers of mma.sync for rows `further` and following of a; 32 bytes of k, number `step`, for each four of them.
  template <int tiles, int words>
  static __device__ __forceinline__ void rows(const unsigned char* shared, const Reader& reader, int further, int step,
                                              std::uint32_t (&a)[tiles][words]) {
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
#pragma unroll
      for (int w = 0; w < words; w += 4) {
        std::uint32_t four[4];
        read(shared, reader, further + 16 * i, step + w / 4, four);
#pragma unroll
        for (int e = 0; e < 4; ++e) a[i][w + e] = four[e];
      }
    }
  }

  // Likewise for all columns of b, for each two registers.
  template <int tiles, int words>
  static __device__ __forceinline__ void columns(const unsigned char* shared, const Reader& reader, int step,
                                                 std::uint32_t (&b)[tiles][words]) {
#pragma unroll
    for (int j = 0; j < tiles; j += 2) {
#pragma unroll
      for (int w = 0; w < words; w += 2) {
        std::uint32_t four[4];
        read(shared, reader, 8 * j, step + w / 2, four);
        b[j][w] = four[0], b[j][w + 1] = four[1], b[j + 1][w] = four[2], b[j + 1][w + 1] = four[3];
      }
    }
  }
};

}  // namespace gradkern::cuda
