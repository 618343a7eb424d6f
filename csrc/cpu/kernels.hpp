// The loops that each instruction set compiles for itself, one table per set. They work on a range and know no threads.
#pragma once

#include "executor/kernels.hpp"

namespace gradkern::cpu {

// Columns of a packed B are padded to this many, so that no instruction set has a ragged edge.
inline constexpr std::int64_t column_padding = 32;

// A packed product: a is (rows, k) and b is (k, padded), both in the lane type; bias is (padded,) or null.
template <class T>
struct Panel {
  const T* a;
  const T* b;
  const T* bias;
  double* wide;
  std::int64_t k, n, padded;
  std::int64_t row_begin, row_end, column_begin, column_end;  // column_begin is a multiple of column_padding
};

struct Kernels {
  const char* name;
  int vector_bytes;
  void (*convert)(const executor::ConvertArgs&, std::int64_t begin, std::int64_t end, ops::RoundingCounts&);
  void (*product_float32)(const Panel<float>&);
  void (*product_float64)(const Panel<double>&);
  void (*product_float16)(const Panel<double>&);
  void (*product_bfloat16)(const Panel<double>&);
  void (*activation_forward)(const executor::ActivationArgs&, std::int64_t begin, std::int64_t end);
  void (*activation_backward)(const executor::ActivationArgs&, std::int64_t begin, std::int64_t end);
  void (*measure)(const executor::StatisticsArgs&, std::int64_t begin, std::int64_t end, ops::Statistics&,
                  ops::Moments&);
  void (*elementary_f32)(int function, const float* x, float* y, std::int64_t size);
  void (*elementary_f64)(int function, const double* x, double* y, std::int64_t size);
};

// The one symbol of each instruction set's object.
extern const Kernels kernels_base;
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
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
