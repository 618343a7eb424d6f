#include "chain/reference.hpp"

#include <algorithm>
#include <cmath>

#include "base/thread_pool.hpp"

namespace gradkern::chain {
namespace {

using ops::ActivationId;

constexpr double window = 0x1p200;

// The largest of the magnitudes, NaN passed over; of those that are finite only, on request.
template <bool finite>
double largest(const double* values, std::int64_t count) {
  double most[8] = {};  // side by side, for vectors
  std::int64_t i = 0;
  const auto take = [](double& kept, double v) {
    const double a = std::abs(v);
    if constexpr (finite)
      kept = a < __builtin_inf() && a > kept ? a : kept;
    else
      kept = a > kept ? a : kept;
  };
  for (; i + 8 <= count; i += 8)
    for (std::int64_t j = 0; j < 8; ++j) take(most[j], values[i + j]);
  for (; i < count; ++i) take(most[0], values[i]);
  return *std::max_element(most, most + 8);
}

// The largest finite magnitude.
double largest(const double* values, std::int64_t count) {
  const double most = largest<false>(values, count);
  return most < __builtin_inf() ? most : largest<true>(values, count);
}

double largest(const Values& values) {
  constexpr std::int64_t chunk = 8192;
  const auto size = static_cast<std::int64_t>(values.size());
  std::vector<double> parts(static_cast<std::size_t>(base::chunk_count(size, chunk)));
  base::parallel_for(static_cast<std::int64_t>(parts.size()), [&](std::int64_t c) {
    parts[static_cast<std::size_t>(c)] = largest(values.data() + c * chunk, std::min(chunk, size - c * chunk));
  });
  return parts.empty() ? 0 : *std::max_element(parts.begin(), parts.end());
}

int to_int(std::int64_t exponent) {
  return static_cast<int>(std::max<std::int64_t>(-5000, std::min<std::int64_t>(5000, exponent)));
}

double scaled(double value, std::int64_t exponent) { return exponent ? std::ldexp(value, to_int(exponent)) : value; }

// phi is homogeneous of degree one: phi(2^e z) = 2^e phi(z).
bool homogeneous(ActivationId activation) {
  return activation == ActivationId::identity || activation == ActivationId::relu ||
         activation == ActivationId::leaky_relu;
}

Values phi(const Executor& e, const Values& z, ActivationId activation, double alpha) {
  Values h(z.size());
  executor::ActivationArgs args{};
  args.size = static_cast<std::int64_t>(z.size());
  args.activation = activation;
  args.alpha = alpha;
  args.format = FormatId::float64;
  args.pre_activation = z.data();
  args.wide = h.data();
  e.activation_forward(e, args);
  return h;
}

// dh * phi'(z), both plain float64.
Values times_slope(const Executor& e, const Values& dh, const Values& z, ActivationId activation, double alpha) {
  Values dz(z.size());
  executor::ActivationArgs args{};
  args.size = static_cast<std::int64_t>(z.size());
  args.activation = activation;
  args.alpha = alpha;
  args.format = FormatId::float64;
  args.pre_activation = z.data();
  args.grad_output = dh.data();
  args.wide = dz.data();
  e.activation_backward(e, args);
  return dz;
}

// The true values of z as far as float64 holds them; an entry that would become zero keeps its sign as a tiny value.
Values true_values(const Reference& z) {
  Values values(z.values);
  if (z.exponent == 0) return values;
  for (double& v : values) {
    const double t = scaled(v, z.exponent);
    v = (t == 0 && v != 0) ? std::copysign(0x1p-1000, v) : t;
  }
  return values;
}

}  // namespace

void renormalise(Reference& tensor) {
  const double most = largest(tensor.values);
  if (most == 0 || (most <= window && most >= 1 / window)) return;
  const int shift = std::ilogb(most);
  for (double& v : tensor.values) v = std::ldexp(v, -shift);
  tensor.exponent += shift;
}

void reference_products(const Executor& e, const std::vector<ReferenceProduct>& list) {
  std::vector<executor::ProductArgs> products;
  for (const ReferenceProduct& p : list) {
    p.result->values.resize(static_cast<std::size_t>(p.m * p.n));
    p.result->exponent = p.exponent;
    executor::ProductArgs args{};
    args.m = p.m;
    args.n = p.n;
    args.k = p.k;
    args.a = p.a;
    args.b = p.b;
    args.operands = args.accumulate = args.bias_format = FormatId::float64;
    args.wide = p.result->values.data();
    products.push_back(args);
  }
  e.products(e, products.data(), static_cast<std::int64_t>(products.size()));
  for (const ReferenceProduct& p : list) renormalise(*p.result);
}

Reference reference_product(const Executor& e, const executor::Operand& a, const executor::Operand& b, std::int64_t m,
                            std::int64_t n, std::int64_t k, std::int64_t exponent) {
  Reference result;
  reference_products(e, {{&result, a, b, m, n, k, exponent}});
  return result;
}

Reference reference_dense(const Executor& e, const Reference& h, const Source& weight, const Source& bias,
                          std::int64_t batch, std::int64_t n_out, std::int64_t n_in) {
  Reference z =
      reference_product(e, rows_of(h, n_in), {weight.format, weight.data, 1, n_in}, batch, n_out, n_in, h.exponent);
  if (bias.data) add_bias(z, decode_all(e, bias));
  return z;
}

void add_bias(Reference& z, const Values& bias) {
  if (std::all_of(bias.begin(), bias.end(), [](double b) { return b == 0; })) return;
  const double most_bias = largest(bias);
  if (z.exponent != 0) {  // bring the sum to the exponent of the larger term
    const double most = largest(z.values);
    const std::int64_t target =
        std::max<std::int64_t>(most > 0 ? z.exponent + std::ilogb(most) : INT64_MIN, std::ilogb(most_bias));
    for (double& v : z.values) v = scaled(v, z.exponent - target);
    z.exponent = target;
  }
  for (std::size_t i = 0; i < z.values.size(); ++i) {
    z.values[i] += scaled(bias[i % bias.size()], -z.exponent);
  }
  renormalise(z);
}

void add(Reference& total, const Reference& part) {
  if (total.values.empty()) {
    total = part;
    return;
  }
  const auto top = [](const Reference& r) {
    const double most = largest(r.values);
    return most > 0 ? r.exponent + std::ilogb(most) : INT64_MIN;
  };
  const std::int64_t exponent =
      total.exponent == part.exponent ? total.exponent : std::max({top(total), top(part), INT64_MIN + 1});
  if (exponent == INT64_MIN + 1) return;  // two zeros
  for (std::size_t i = 0; i < total.values.size(); ++i) {
    total.values[i] =
        scaled(total.values[i], total.exponent - exponent) + scaled(part.values[i], part.exponent - exponent);
  }
  total.exponent = exponent;
  renormalise(total);
}

Reference reference_activation(const Executor& e, const Reference& z, ActivationId activation, double alpha) {
  if (z.exponent == 0 || homogeneous(activation)) {
    Reference h{phi(e, z.values, activation, alpha), z.exponent};
    renormalise(h);
    return h;
  }
  const Values truth = true_values(z);
  Reference h{phi(e, truth, activation, alpha), 0};
  const bool at_zero = phi(e, {0.0}, activation, alpha)[0] != 0;
  const double most = largest(truth);
  if (z.exponent < 0 && !at_zero) {  // near zero phi is linear: phi(z) = phi'(0) z to 2^-60
    const Values slope = times_slope(e, Values(truth.size(), 1.0), truth, activation, alpha);
    for (std::size_t i = 0; i < truth.size(); ++i) {
      const bool linear = std::abs(truth[i]) < 0x1p-60;
      h.values[i] = linear ? slope[i] * z.values[i] : scaled(h.values[i], -z.exponent);
    }
    h.exponent = z.exponent;
  } else if (z.exponent > 0 && !(most < 0x1p900 && std::isfinite(scaled(largest(z.values), z.exponent)))) {
    const Values slope = times_slope(e, Values(truth.size(), 1.0), truth, activation, alpha);
    const auto linear = [&](std::size_t i) { return std::abs(truth[i]) > 0x1p60 && slope[i] != 0; };
    bool any_linear = false;
    for (std::size_t i = 0; i < truth.size(); ++i) any_linear |= linear(i);
    if (any_linear) {  // far from zero phi is linear or bounded; a bounded entry is nothing beside a linear one
      for (std::size_t i = 0; i < truth.size(); ++i) {
        h.values[i] = linear(i) ? slope[i] * z.values[i] : scaled(h.values[i], -z.exponent);
      }
      h.exponent = z.exponent;
    }
  }
  renormalise(h);
  return h;
}

Reference reference_activation_backward(const Executor& e, const Reference& dh, const Reference& z,
                                        ActivationId activation, double alpha) {
  const bool scales = homogeneous(activation);
  const Values truth = scales ? Values() : true_values(z);
  Reference dz{times_slope(e, dh.values, scales ? z.values : truth, activation, alpha), dh.exponent};
  if (!scales) {  // phi' is never zero there: what underflowed stands as the smallest double, not as zero
    for (std::size_t i = 0; i < dz.values.size(); ++i) {
      if (dz.values[i] == 0 && dh.values[i] != 0) dz.values[i] = std::copysign(0x1p-1074, dh.values[i]);
    }
  }
  renormalise(dz);
  return dz;
}

Values decode_all(const Executor& e, const Source& source) {
  Values values(static_cast<std::size_t>(source.size));
  executor::ConvertArgs args{};
  args.size = source.size;
  args.source_format = source.format;
  args.format = FormatId::float64;
  args.source = source.data;
  args.stored = values.data();
  args.scale = 1;
  e.convert(e, args);
  return values;
}

}  // namespace gradkern::chain
