// The loops that each instruction set compiles for itself, one table per set. They work on a range and know no threads.
#pragma once

#include "executor/kernels.hpp"
#include "mma/units.hpp"

namespace gradkern::cpu {

// What of a product is packed at a time: so many columns of b and rows of a, so deep. Columns are whole panels on every
// instruction set.
struct Blocking {
  std::int64_t depth, columns, rows;
  constexpr std::int64_t lanes() const { return depth * (columns + rows); }
};

// A panel of b takes most of L1, all of them part of L2.
inline constexpr Blocking small_blocks{320, 256, 98};

// Where a product packs: blocking.lanes() of them.
template <class T>
struct ProductScratch {
  Blocking blocking;
  T* lanes;
};

// c[i, j] over a[i * a_row + k * a_step] and b[k * b_step + j * b_column], all in the lane type.
template <class T>
struct ProductLanes {
  const T* a;
  std::int64_t a_row, a_step;
  const T* b;
  std::int64_t b_step, b_column;
  const T* bias;  // or null
  std::int64_t bias_row;
  T* c;  // rows of n
  std::int64_t n, k;
  bool continued;  // the chain starts from c
  bool b_is_finite = false;
};

struct ProductRange {
  std::int64_t row_begin, row_end, column_begin, column_end;
};

// How the exponent of a field becomes a small integer: max(exponent, floor) + bias, and what a zero's is.
struct ExponentRule {
  int floor, bias, zero;
  int least;  // what of a value that is not zero is at least
  // Above every sum that a zero has part in, below all others.
  int zero_sum(const ExponentRule& other) const { return least + other.least - 1; }
};

// Entries of a tensor that is clipped; next: where those of the range after it lie, fetched from memory meanwhile.
struct ClipRange {
  std::int64_t begin, end;
  const void* next;
  bool next_is_whole;  // a whole chunk lies there
};

// How a tensor is multiplied. plain: no entry and no product is infinite or NaN, and the factor is a normal float32 (any for
// float64); lossless: nor does a product become subnormal, or zero.
enum class ClipWay { by_entry, plain, lossless };

// Chunks of k, and rows of a, that are packed at a time; whole instructions.
inline constexpr std::int64_t mma_depth = 64, mma_rows = 128;
inline constexpr std::int64_t mma_scratch = small_blocks.lanes() * std::int64_t(sizeof(float));  // bytes

// c = a b on a matrix unit, then + bias, all as float32 values; operands finite.
struct UnitProduct {
  mma::Instruction instruction;
  bool wide;  // in float64 lanes, for exponents of any size
  ExponentRule a_rule, b_rule;
  const float* a;
  std::int64_t a_row, a_step;
  const float* b;
  std::int64_t b_step, b_column;
  const float* bias;  // or null
  std::int64_t bias_row;
  float* c;  // rows of n
  std::int64_t n, k;
  bool continued;
};

// c += a b of bfloat16 bits by the processor's own instruction, then + bias.
struct BfloatProduct {
  const std::uint16_t* a;
  std::int64_t a_row, a_step;
  const std::uint16_t* b;
  std::int64_t b_step, b_column;
  const float* bias;  // or null
  std::int64_t bias_row;
  float* c;  // rows of n
  std::int64_t n, k;
  bool continued;
};

using BfloatKernel = void (*)(const BfloatProduct&, const ProductRange&, char* scratch);

// How a BfloatKernel packs: all k of a block, so many rows of a and one panel of columns of b.
inline constexpr std::int64_t bfloat_depth = 1024, bfloat_rows = 512, bfloat_columns = 32;
inline constexpr std::int64_t bfloat_scratch = 2 * bfloat_depth * (bfloat_rows + bfloat_columns) + 64;  // bytes

// Of mma/cpu_units.hpp's amx and pairs; each an object of its own, for processors that have it.
void amx_product(const BfloatProduct&, const ProductRange&, char* scratch);
void avx512_bf16_product(const BfloatProduct&, const ProductRange&, char* scratch);

struct Kernels {
  const char* name;
  int vector_bytes;
  // The counts are whole only where args.counts asks for some.
  void (*convert)(const executor::ConvertArgs&, std::int64_t begin, std::int64_t end, ops::RoundingCounts&);
  void (*product_float32)(const ProductLanes<float>&, const ProductRange&, const ProductScratch<float>&);
  // The same bits by way of float64 lanes, for values that float32 lanes are slow on.
  void (*product_gradual)(const ProductLanes<double>&, const ProductRange&, const ProductScratch<double>&);
  void (*product_float64)(const ProductLanes<double>&, const ProductRange&, const ProductScratch<double>&);
  void (*product_float16)(const ProductLanes<double>&, const ProductRange&, const ProductScratch<double>&);
  void (*product_bfloat16)(const ProductLanes<double>&, const ProductRange&, const ProductScratch<double>&);
  // float16 operands and sums as bits, where the processor has such an fma; null elsewhere.
  void (*product_half)(const ProductLanes<std::uint16_t>&, const ProductRange&, const ProductScratch<std::uint16_t>&);
  // scratch: mma_scratch bytes.
  void (*unit_product)(const UnitProduct&, const ProductRange&, char* scratch);
  void (*widen_f32)(formats::FormatId, const void* stored, std::int64_t begin, std::int64_t end, float* lanes);
  void (*widen_f64)(formats::FormatId, const void* stored, std::int64_t begin, std::int64_t end, double* lanes);
  // Entries [begin, end) of y, for each vector.
  void (*matvec)(const executor::MatvecArgs&, std::int64_t begin, std::int64_t end);
  void (*activation_forward)(const executor::ActivationArgs&, std::int64_t begin, std::int64_t end);
  void (*activation_backward)(const executor::ActivationArgs&, std::int64_t begin, std::int64_t end);
  // The moments of each piece, a block or a chunk; begin is the start of one.
  void (*measure)(const executor::StatisticsArgs&, std::int64_t begin, std::int64_t end, std::int64_t piece,
                  ops::Statistics& counts, ops::Moments* moments);
  // The same for processors that compute on registers of 512 bits half by half: sums in half of them, and those of 16-bit
  // formats as integers, with VNNI. The two change places where that suits the processor.
  void (*measure_otherwise)(const executor::StatisticsArgs&, std::int64_t begin, std::int64_t end, std::int64_t piece,
                            ops::Statistics& counts, ops::Moments* moments);
  void (*errors)(const executor::ErrorArgs&, std::int64_t begin, std::int64_t end, executor::ErrorSums& sums);
  // The range begins a chunk.
  void (*clip_survey)(const executor::ClipTensor&, ops::Norm, const ClipRange&, ops::Survey&);
  void (*clip_scale)(const executor::ClipTensor&, const ops::ClipFactor&, ClipWay, bool zero, const ClipRange&,
                     ops::ClipCounts&);
  // low and high are values of the tensor's format; zero: what is not finite counts as zero.
  void (*clip_clamp)(const executor::ClipTensor&, double low, double high, bool zero, const ClipRange&,
                     ops::ClipCounts&);
  void (*update)(const executor::UpdateArgs&, std::int64_t begin, std::int64_t end, ops::UpdateCounts&);
  void (*elementary_f32)(int function, const float* x, float* y, std::int64_t size);
  void (*elementary_f64)(int function, const double* x, double* y, std::int64_t size);
  std::int64_t (*multiply_adds)(bool wide, std::int64_t rounds, double x);
};

// The one symbol of each instruction set's object.
extern const Kernels kernels_base;
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx512fp16;
extern const Kernels kernels_neon;

inline constexpr const char* elementary_names[] = {"exp",
                                                   "expm1",
                                                   "log1p",
                                                   "tanh",
                                                   "sigmoid",
                                                   "erf",
                                                   "erfc",
                                                   "normal_cdf",
                                                   "normal_pdf",
                                                   "sigmoid_derivative",
                                                   "tanh_derivative"};
inline constexpr int elementary_count = 11;

}  // namespace gradkern::cpu
