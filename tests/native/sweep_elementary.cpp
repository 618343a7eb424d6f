// sweep_elementary [function|all] [stride]: every float32 bit pattern (or every stride-th) through the elementary
// functions, against the double C library. Prints the worst error in units in the last place, where it is, and how
// often a NaN, an infinity or a sign is wrong or the vector's bits differ from the scalar's. Exit code 1 if a bound is
// exceeded.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "ops/elementary.hpp"
#include "simd/vec.hpp"

namespace {

using gradkern::simd::vec_f32;
constexpr int lanes = sizeof(vec_f32) / sizeof(float);
constexpr int threads = 2;

struct outcome {
  double worst_ulp = 0;
  float worst_input = 0;
  std::uint64_t special_mismatches = 0;
  std::uint64_t vector_mismatches = 0;
};

// The spacing of float32 values around v, gradual underflow included.
double spacing(double v) {
  const double power = std::bit_cast<double>(std::bit_cast<std::uint64_t>(v) & 0x7ff0000000000000u);
  return std::max(power * 0x1p-23, 0x1p-149);
}

bool special_mismatch(float got, double expected) {
  if (std::isnan(got) || std::isnan(expected)) return std::isnan(got) != std::isnan(expected);
  return std::isinf(got) != std::isinf(static_cast<float>(expected)) || std::signbit(got) != std::signbit(expected);
}

void compare(float input, float got, double expected, outcome& o) {
  if (special_mismatch(got, expected)) ++o.special_mismatches;
  if (!std::isfinite(got) || !std::isfinite(expected)) return;
  const double ulp = std::fabs(got - expected) / spacing(expected);
  if (ulp > o.worst_ulp) {
    o.worst_ulp = ulp;
    o.worst_input = input;
  }
}

template <class Function, class Reference>
void sweep_range(Function function, Reference reference, std::uint64_t first, std::uint64_t last, std::uint64_t stride,
                 outcome& o) {
  for (std::uint64_t i = first; i < last; i += lanes) {
    float x[lanes], y[lanes];
    for (int j = 0; j < lanes; ++j) x[j] = std::bit_cast<float>(static_cast<std::uint32_t>((i + j) * stride));
    function(vec_f32::load(x)).store(y);
    for (int j = 0; j < lanes; ++j) {
      const float scalar = function(x[j]);
      if (std::bit_cast<std::uint32_t>(scalar) != std::bit_cast<std::uint32_t>(y[j])) ++o.vector_mismatches;
      compare(x[j], scalar, reference(static_cast<double>(x[j])), o);
    }
  }
}

template <class Function, class Reference>
outcome sweep(Function function, Reference reference, std::uint64_t stride) {
  const std::uint64_t count = ((std::uint64_t(1) << 32) + stride - 1) / stride;
  outcome parts[threads];
  std::thread workers[threads];
  for (int t = 0; t < threads; ++t) {
    const std::uint64_t first = count * t / threads / lanes * lanes;
    const std::uint64_t last = t + 1 == threads ? count : count * (t + 1) / threads / lanes * lanes;
    workers[t] = std::thread([=, &parts] { sweep_range(function, reference, first, last, stride, parts[t]); });
  }
  outcome total;
  for (int t = 0; t < threads; ++t) {
    workers[t].join();
    total.special_mismatches += parts[t].special_mismatches;
    total.vector_mismatches += parts[t].vector_mismatches;
    if (parts[t].worst_ulp > total.worst_ulp) {
      total.worst_ulp = parts[t].worst_ulp;
      total.worst_input = parts[t].worst_input;
    }
  }
  return total;
}

double sigmoid_reference(double x) {
  const double e = std::exp(-std::fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

// e / (1 + e)^2, e = exp(-a).
double logistic_density_reference(double a) {
  const double e = std::exp(-a);
  return e / ((1 + e) * (1 + e));
}

double normal_pdf_reference(double z) { return std::exp(-0.5 * z * z) * 0.39894228040143267794; }

class program {
 public:
  program(const char* name, std::uint64_t stride) : selected_(name), stride_(stride) {}

  template <class Function, class Reference>
  void check(const char* name, double bound, Function function, Reference reference) {
    if (selected_ != "all" && selected_ != name) return;
    const outcome o = sweep(function, reference, stride_);
    const bool good = o.worst_ulp <= bound && o.special_mismatches == 0 && o.vector_mismatches == 0;
    std::printf("%-20s worst %.4f ulp (bound %.2f) at %-14a special mismatches %llu, vector mismatches %llu%s\n", name,
                o.worst_ulp, bound, o.worst_input, static_cast<unsigned long long>(o.special_mismatches),
                static_cast<unsigned long long>(o.vector_mismatches), good ? "" : "  FAILED");
    std::fflush(stdout);
    found_ = true;
    failed_ = failed_ || !good;
  }

  int exit_code() const {
    if (!found_) std::fprintf(stderr, "no function named %s\n", selected_.c_str());
    return failed_ || !found_;
  }

 private:
  std::string selected_;
  std::uint64_t stride_;
  bool found_ = false;
  bool failed_ = false;
};

}  // namespace

// `function` as an object that takes a float or a vector of them.
#define LIFT(function) [](auto x) { return gradkern::ops::function(x); }

int main(int argc, char** argv) {
  const std::uint64_t stride = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  if (stride == 0) {
    std::fprintf(stderr, "usage: sweep_elementary [function|all] [stride]\n");
    return 1;
  }
  program p(argc > 1 ? argv[1] : "all", stride);
  p.check("exp", 1.0, LIFT(exp), [](double x) { return std::exp(x); });
  p.check("expm1", 1.0, LIFT(expm1), [](double x) { return std::expm1(x); });
  p.check("log1p", 1.0, LIFT(log1p), [](double x) { return std::log1p(x); });
  p.check("tanh", 1.0, LIFT(tanh), [](double x) { return std::tanh(x); });
  p.check("sigmoid", 1.0, LIFT(sigmoid), sigmoid_reference);
  p.check("erf", 1.0, LIFT(erf), [](double x) { return std::erf(x); });
  p.check("erfc", 1.0, LIFT(erfc), [](double x) { return std::erfc(x); });
  p.check("normal_cdf", 1.0, LIFT(normal_cdf), [](double z) { return 0.5 * std::erfc(-z * M_SQRT1_2); });
  p.check("normal_pdf", 1.0, LIFT(normal_pdf), normal_pdf_reference);
  p.check("sigmoid_derivative", 1.0, LIFT(sigmoid_derivative),
          [](double z) { return logistic_density_reference(std::fabs(z)); });
  p.check("tanh_derivative", 1.0, LIFT(tanh_derivative),
          [](double z) { return 4 * logistic_density_reference(2 * std::fabs(z)); });
  return p.exit_code();
}
