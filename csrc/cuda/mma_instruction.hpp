// One multiply-add of a warp as a matrix unit's instruction is defined: d += a b for 16 x 8 results.
#pragma once

#include "cuda/lanes.hpp"
#include "cuda/product_result.hpp"

namespace gradkern::cuda {

// whole: one mma.sync of 32 bytes of k. halved: two of 16 bytes. halves: mma::Form::halves, two of 32 bytes from +0.
enum class MmaForm : int { whole, halved, halves };

template <class A_, class B_, class Accumulate_, MmaForm form>
struct MmaInstruction {
  using A = A_;
  using B = B_;
  static constexpr bool half = Accumulate_::id == FormatId::float16, in_halves = form == MmaForm::halves;
  static_assert(!in_halves || (A::id == FormatId::float16 && B::id == FormatId::float16));
  // A warp's part of 16 x 8 results: rows g and g + 8, columns 2t and 2t + 1 (simt/tensor_core.hpp).
  using Word = std::conditional_t<half, std::uint32_t, float>;
  static constexpr int words = half ? 2 : 4;
  // Its operands: of halves, the first's words and then the second's.
  static constexpr int a_words = in_halves ? 8 : 4, b_words = in_halves ? 4 : 2;

  static __device__ __forceinline__ void run(Word (&sum)[words], const std::uint32_t (&a)[a_words],
                                             const std::uint32_t (&b)[b_words]) {
    if constexpr (in_halves) {
      const std::uint32_t a_first[4] = {a[0], a[1], a[2], a[3]}, a_second[4] = {a[4], a[5], a[6], a[7]};
      const std::uint32_t b_first[2] = {b[0], b[1]}, b_second[2] = {b[2], b[3]};
      Word part[words] = {};
      mma_m16n8k16<A>(part, a_first, b_first, part);
      mma_m16n8k16<A>(part, a_second, b_second, part);
#pragma unroll
      for (int w = 0; w < words; ++w) {
        if constexpr (half) {
          sum[w] = add_f16x2(sum[w], part[w]);
        } else {
          sum[w] = sum[w] + part[w];
        }
      }
    } else if constexpr (form == MmaForm::halved) {
      const std::uint32_t a_low[2] = {a[0], a[1]}, a_high[2] = {a[2], a[3]}, b_low[1] = {b[0]}, b_high[1] = {b[1]};
      if constexpr (A::id == FormatId::tfloat32) {
        mma_m16n8k4<A>(sum, a_low, b_low, sum);
        mma_m16n8k4<A>(sum, a_high, b_high, sum);
      } else {
        mma_m16n8k8<A>(sum, a_low, b_low, sum);
        mma_m16n8k8<A>(sum, a_high, b_high, sum);
      }
    } else if constexpr (A::id == FormatId::tfloat32) {
      mma_m16n8k8<A>(sum, a, b, sum);
    } else if constexpr (sizeof(typename A::container) == 2) {
      mma_m16n8k16<A>(sum, a, b, sum);
    } else {
      mma_m16n8k32<A, B>(sum, a, b, sum);
    }
  }

  // Two neighbours of a row of the result, of which a warp's part has two.
  static __device__ __forceinline__ float2 pair(const Word (&sum)[words], int row) {
    if constexpr (half) {
      return {decode_f32<formats::float16>(sum[row] & 0xFFFFu), decode_f32<formats::float16>(sum[row] >> 16)};
    } else {
      return {sum[2 * row], sum[2 * row + 1]};
    }
  }
  static __device__ __forceinline__ void set_pair(Word (&sum)[words], int row, float2 x) {
    if constexpr (half) {
      sum[row] = encode_exact<formats::float16>(x.x) | std::uint32_t(encode_exact<formats::float16>(x.y)) << 16;
    } else {
      sum[2 * row] = x.x;
      sum[2 * row + 1] = x.y;
    }
  }

  // The sum with its bias, NaN as the units write it.
  static __device__ __forceinline__ float finish(const Epilogue& out, int row, int column, float sum) {
    if (out.bias) {
      const std::int64_t index = row * out.bias_row + column;
      if constexpr (half) {
        const auto bias =
            formats::encode<formats::float16>(load_value<double>(out.bias_format, out.bias, index), formats::Mode{}, 0)
                .bits;
        const std::uint16_t one = 0x3C00;
        sum = decode_f32<formats::float16>(fma_f16(one, bias, encode_exact<formats::float16>(sum)));
      } else {
        sum = sum + load_value<float>(out.bias_format, out.bias, index);
      }
    }
    return sum == sum ? sum : __uint_as_float(0x7FFFFFFFu);
  }
};

}  // namespace gradkern::cuda
