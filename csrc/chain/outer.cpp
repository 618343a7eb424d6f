#include "chain/outer.hpp"

#include <algorithm>
#include <cmath>

#include "chain/reference.hpp"
#include "chain/summary.hpp"

namespace gradkern::chain {
namespace {

// Below this share of the sum of the terms' norms the squares have cancelled too much to be trusted.
constexpr double trusted = 0x1p-20;

struct Gram {
  double square = 0, bound = 0;  // of the norm, and of the sum of the terms' norms, times 2^exponent
  std::int64_t exponent = 0;
};

bool is_finite(const Executor& e, const Source& source) {
  const Summary s = summarise(e, source);
  return s.size == s.moments.finite;
}

Gram gram(const Executor& e, const Source& a, const Source& b, std::int64_t rows) {
  const auto products = [&](const Source& s) {
    const std::int64_t n = s.size / rows;
    Reference result{Values(static_cast<std::size_t>(rows * rows)), 0};
    executor::ProductArgs args{};
    args.m = args.n = rows;
    args.k = n;
    args.a = {s.format, s.data, n, 1};
    args.b = {s.format, s.data, 1, n};
    args.operands = s.format;
    args.accumulate = args.bias_format = FormatId::float64;
    args.wide = result.values.data();
    e.products(e, &args, 1);
    renormalise(result);
    return result;
  };
  const Reference aa = products(a);
  const auto is_zero = [](double v) { return v == 0; };
  if (std::all_of(aa.values.begin(), aa.values.end(), is_zero) && is_finite(e, b)) return {};
  const Reference bb = products(b);
  Gram result{0, 0, aa.exponent + bb.exponent};
  double norms = 0;
  for (std::size_t i = 0; i < aa.values.size(); ++i) {
    result.square += aa.values[i] * bb.values[i];
    if (i % static_cast<std::size_t>(rows + 1) == 0) norms += std::sqrt(aa.values[i]) * std::sqrt(bb.values[i]);
  }
  result.bound = norms * norms;
  return result;
}

Reference exact(const Executor& e, const Source& source) {
  Reference r{decode_all(e, source), 0};
  renormalise(r);
  return r;
}

}  // namespace

double log2_norm(const Executor& e, const Reference& tensor) {
  const auto size = static_cast<std::int64_t>(tensor.values.size());
  const Summary s = summarise(e, {FormatId::float64, tensor.values.data(), size});
  if (s.size != s.moments.finite) return std::nan("");
  const ops::SquareSum& squares = s.moments.squares;
  const double sum = squares.big > 0 ? squares.big : squares.medium > 0 ? squares.medium : squares.small;
  const double shift = squares.big > 0 ? 600 : squares.medium > 0 ? 0 : -600;
  return std::log2(sum) / 2 + shift + static_cast<double>(tensor.exponent);
}

double log2_norm_of_outer_sum(const Executor& e, const Source& a, const Source& b, std::int64_t rows) {
  const std::int64_t m = a.size / rows, n = b.size / rows;
  // Squares of float64 may leave its range; those of the other formats do not.
  if (a.format != FormatId::float64 && b.format != FormatId::float64 && rows * rows * (m + n) < rows * m * n) {
    const Gram g = gram(e, a, b, rows);
    if (!(g.bound < __builtin_inf())) return std::nan("");
    if (g.bound == 0) return -__builtin_inf();
    if (g.square > trusted * g.bound) return (std::log2(g.square) + static_cast<double>(g.exponent)) / 2;
  }
  if (!is_finite(e, a) || !is_finite(e, b)) return std::nan("");
  const Reference left = exact(e, a), right = exact(e, b);
  return log2_norm(
      e, reference_product(e, columns_of(left, m), rows_of(right, n), m, n, rows, left.exponent + right.exponent));
}

}  // namespace gradkern::chain
