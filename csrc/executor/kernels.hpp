// What every executor offers: one table of whole-tensor operations, over plain structs and pointers.
//
// A `wide` result is in wide_format: float32, or float64 where the accumulator (or the storage of an activation) is. It
// holds the value before rounding to storage, exactly; `convert` then rounds it and reports. Tensors are row-major and
// contiguous unless strides are given.
#pragma once

#include <cstdint>
#include <functional>

#include "formats/encode.hpp"
#include "formats/format.hpp"
#include "ops/activation.hpp"
#include "ops/clip.hpp"
#include "ops/rounding.hpp"
#include "ops/statistics.hpp"
#include "ops/update.hpp"

namespace gradkern::executor {

using formats::FormatId;

inline FormatId wide_format(FormatId computed_in) {
  return computed_in == FormatId::float64 ? FormatId::float64 : FormatId::float32;
}

// A matrix in storage, with strides in elements, so that a transpose costs nothing.
struct Operand {
  FormatId format;
  const void* data;
  std::int64_t row_stride, column_stride;
};

// wide[i, j] = fl(... fl(fl(start + a[i,0] b[0,j]) + a[i,1] b[1,j]) ... [+ bias[i,j]]): k ascending, one fma a step, in
// `accumulate`. start is +0, or what `wide` holds: the end of the chain of an earlier product. A matrix unit replaces
// the fma steps by its own, as mma/model.hpp says; start is its first accumulator, and the bias comes after its last.
struct ProductArgs {
  std::int64_t m, n, k;
  Operand a, b;
  FormatId operands;    // the storage format, or tfloat32: what a and b are rounded to (nearest even) first
  FormatId accumulate;  // float64, float32, float16 or bfloat16; of a unit float32 or float16
  int unit;             // a mma::Unit, 0 for the fma chain
  int instruction_k;    // of the unit, 0 for its default
  FormatId bias_format;
  const void* bias;              // (m, n) or null
  std::int64_t bias_row;         // its row stride: 0 for a bias (n,) of every row
  void* wide;                    // (m, n) in wide_format(accumulate)
  const ProductArgs* continued;  // the product that `wide` holds and that this one goes on, or null
  bool b_is_finite = false;      // known of b, so that nobody needs to look
};

// A row-major matrix in storage times a few float64 vectors, as ops/matvec.hpp says: y = W x, or y = W^T x.
inline constexpr std::int64_t matvec_vectors = 16;  // at most

struct MatvecArgs {
  std::int64_t rows, columns, vectors;
  FormatId format;
  const void* matrix;
  bool transposed;
  const double* x;  // (vectors, columns); transposed: (vectors, rows)
  double* y;        // (vectors, rows); transposed: (vectors, columns)
};

struct ConvertArgs {
  std::int64_t size;
  FormatId source_format, format;
  const void* source;
  void* stored;
  double scale;  // applied in float64: exact for powers of two
  formats::Mode mode;
  std::uint64_t stream;         // which tensor this is, for stochastic rounding
  ops::RoundingCounts* counts;  // or null, where nobody asks
};

struct ActivationArgs {
  std::int64_t size;
  ops::ActivationId activation;
  double alpha;
  FormatId format;  // of every stored tensor here; float64 is evaluated in float64, the rest in float32
  const void* pre_activation;
  const void* grad_output;  // backward only
  const void* output;       // backward with the stored_output derivative, else null
  void* wide;               // phi(z), or grad_output * phi', in wide_format(format)
  void* slope;              // backward: phi' itself, likewise, or null
};

struct StatisticsArgs {
  std::int64_t size;
  FormatId format;
  const void* data;
  // As many bytes that will be wanted soon: fetched from memory meanwhile, where that helps.
  const void* next = nullptr;
};

// Called once for each tensor, on any thread; the statistics are the callee's for as long as it runs.
using StatisticsDone = std::function<void(std::int64_t tensor, const ops::Statistics&)>;

// stored[i] * 2^power - truth[i]; scale is 2^power, or 0 where float64 has no such number.
struct ErrorArgs {
  std::int64_t size;
  FormatId format;
  const void* stored;
  const double* truth;
  double scale;
  int power;
};

struct ErrorSums {
  ops::SquareSum error, truth;
  bool nonfinite = false, infinite = false;  // what is stored; its distance from the truth

  void merge(const ErrorSums& other) {
    error.merge(other.error);
    truth.merge(other.truth);
    nonfinite |= other.nonfinite;
    infinite |= other.infinite;
  }
};

// A gradient: read from source, written to target, which is the same where it is clipped in place.
struct ClipTensor {
  std::int64_t size;
  FormatId format;
  const void* source;
  void* target;
};

// updated = fl(weight - rate * gradient), both of `size` entries; updated may be weight itself.
struct UpdateArgs {
  std::int64_t size;
  FormatId format;  // of weight and updated
  const void* weight;
  FormatId gradient_format;
  const void* gradient;
  void* updated;
  double rate;  // lr / loss scale
  formats::Mode mode;
  std::uint64_t stream;  // which tensor this is, for stochastic rounding
  ops::UpdateCounts* counts;
};

struct DeviceTable;

struct Executor {
  const char* name;
  int vector_bytes;
  const void* kernels;  // what the functions below need of their own
  void (*convert)(const Executor&, const ConvertArgs&);
  void (*products)(const Executor&, const ProductArgs*, std::int64_t count);  // none of which needs another
  void (*matvec)(const Executor&, const MatvecArgs&);
  void (*activation_forward)(const Executor&, const ActivationArgs&);
  void (*activation_backward)(const Executor&, const ActivationArgs&);
  void (*statistics)(const Executor&, const StatisticsArgs* tensors, std::int64_t count, const StatisticsDone&);
  void (*errors)(const Executor&, const ErrorArgs&, ErrorSums&);
  // surveys[i] = what clipping asks of tensor i.
  void (*clip_survey)(const Executor&, const ClipTensor* tensors, std::int64_t count, ops::Norm, ops::Survey* surveys);
  // Multiplies each tensor by its factor, given its survey; zero: entries that are not finite become 0.
  void (*clip_scale)(const Executor&, const ClipTensor* tensors, std::int64_t count, const ops::Survey* surveys,
                     const ops::ClipFactor* factors, bool zero, ops::ClipCounts* counts);
  // Moves the entries of each tensor between its bounds; zero: those that are not finite count as zeros.
  void (*clip_clamp)(const Executor&, const ClipTensor* tensors, std::int64_t count, const ops::ClipBounds* bounds,
                     bool zero, ops::ClipCounts* counts);
  void (*update)(const Executor&, const UpdateArgs&);
  void (*elementary_f32)(const Executor&, int function, const float* x, float* y, std::int64_t size);
  void (*elementary_f64)(const Executor&, int function, const double* x, double* y, std::int64_t size);
  // As many rounds of float32 (wide: float64) multiply-adds in registers on every thread; returns how many those are.
  std::int64_t (*multiply_adds)(const Executor&, bool wide, std::int64_t rounds);
  const DeviceTable* device = nullptr;  // executor/device.hpp; null for the CPU's
  bool resident = false;                // the tensors of a list are known to lie on the device: nobody asks where
};

}  // namespace gradkern::executor
