// A product of packed operands, by an executor and by the reference loop.
#pragma once

#include <algorithm>

#include "check.hpp"
#include "ref/dense.hpp"
#include "tensors.hpp"

namespace gradkern::test {

// The bits of one case, with what they stand for as doubles.
struct Case {
  std::int64_t m, n, k;
  FormatId storage, operands, accumulate;
  bool transpose_a, transpose_b;
  // a is stored (k, m) under transpose_a, b (n, k) under transpose_b; bias is (n,), (m, n) or empty for none; start is
  // (m, n) in the accumulator's format, or empty for +0.
  Tensor a, b, bias, start;
};

inline std::vector<double> transposed(const std::vector<double>& values, std::int64_t rows, std::int64_t columns) {
  std::vector<double> result;
  for (std::int64_t j = 0; j < columns; ++j)
    for (std::int64_t i = 0; i < rows; ++i) result.push_back(values[static_cast<std::size_t>(i * columns + j)]);
  return result;
}

inline std::vector<double> as_operands(std::vector<double> values, FormatId operands) {
  if (operands != FormatId::tfloat32) return values;
  for (double& x : values) x = formats::decode<formats::tfloat32>(formats::encode<formats::tfloat32>(x, {}).bits);
  return values;
}

inline std::vector<double> expected(const Case& c) {
  const auto a = as_operands(c.transpose_a ? transposed(c.a.values, c.k, c.m) : c.a.values, c.operands);
  const auto b = as_operands(c.transpose_b ? transposed(c.b.values, c.n, c.k) : c.b.values, c.operands);
  const bool double_operands = c.operands == FormatId::float64;
  return formats::visit(c.accumulate, [&](auto f) {
    using Acc = decltype(f);
    if constexpr (sizeof(typename Acc::container) == 1 || Acc::id == FormatId::tfloat32) {
      return std::vector<double>();
    } else {
      return ref::product<Acc>(c.m, c.n, c.k, a, b, c.bias.values, double_operands, c.start.values);
    }
  });
}

inline std::vector<double> computed(const executor::Executor& e, const Case& c) {
  const auto size = static_cast<std::size_t>(c.m * c.n);
  std::vector<double> wide(size, -7.0);
  std::vector<float> narrow(size, -7.0f);
  const bool is_narrow = executor::wide_format(c.accumulate) == FormatId::float32;
  executor::ProductArgs args{};
  args.m = c.m;
  args.n = c.n;
  args.k = c.k;
  args.a = {c.storage, c.a.data(), c.transpose_a ? 1 : c.k, c.transpose_a ? c.m : 1};
  args.b = {c.storage, c.b.data(), c.transpose_b ? 1 : c.n, c.transpose_b ? c.k : 1};
  args.operands = c.operands;
  args.accumulate = c.accumulate;
  args.bias_format = c.storage;
  args.bias = c.bias.values.empty() ? nullptr : c.bias.data();
  args.bias_row = c.bias.values.size() == size ? c.n : 0;
  const auto is_finite = [](double x) { return std::isfinite(x); };
  args.b_is_finite = c.m % 2 && std::all_of(c.b.values.begin(), c.b.values.end(), is_finite);
  const executor::ProductArgs before{};
  if (!c.start.values.empty()) {
    args.continued = &before;
    wide = c.start.values;
    narrow.assign(wide.begin(), wide.end());
  }
  args.wide = is_narrow ? static_cast<void*>(narrow.data()) : wide.data();
  e.products(e, &args, 1);
  if (is_narrow) wide.assign(narrow.begin(), narrow.end());
  return wide;
}

inline void compare(const executor::Executor& e, const Case& c, const std::vector<double>& truth) {
  const auto got = computed(e, c);
  for (std::size_t i = 0; i < truth.size(); ++i) {
    CHECK(same(got[i], truth[i]), e.name, name_of(c.storage), name_of(c.operands), name_of(c.accumulate), c.m, c.n, c.k,
          "at", i, "got", got[i], "expected", truth[i]);
  }
}

}  // namespace gradkern::test
