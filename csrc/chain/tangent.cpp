#include "chain/tangent.hpp"

#include <algorithm>
#include <cmath>

#include "base/expects.hpp"
#include "chain/reference.hpp"
#include "ops/matvec.hpp"

namespace gradkern::chain {
namespace {

constexpr std::int64_t lanes = ops::matvec_lanes;
constexpr double dependent = 0x1p-46;  // of a vector's length: what rounding leaves of one in the span of others

double dot(const double* a, const double* b, std::int64_t size) {
  double sum[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes)
    for (std::int64_t j = 0; j < lanes; ++j) sum[j] += a[i + j] * b[i + j];
  for (; i < size; ++i) sum[i % lanes] += a[i] * b[i];
  return ops::fold(sum);
}

void subtract(double* a, double factor, const double* b, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) a[i] -= factor * b[i];
}

void multiply(double* a, double factor, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) a[i] *= factor;
}

// The length, of any that float64 holds.
double length(const double* a, std::int64_t size) {
  const double square = dot(a, a, size);
  if (square > 0x1p-900 && square < 0x1p900) return std::sqrt(square);
  double most = 0;
  for (std::int64_t i = 0; i < size; ++i) most = std::max(most, std::abs(a[i]));
  if (most == 0 || !(most < __builtin_inf())) return most;
  const int exponent = std::ilogb(most);
  std::vector<double> scaled(a, a + size);
  for (double& v : scaled) v = std::ldexp(v, -exponent);
  return std::ldexp(std::sqrt(dot(scaled.data(), scaled.data(), size)), exponent);
}

// Divides a vector by its length; zero stays zero.
double normalise(double* a, std::int64_t size) {
  const double norm = length(a, size);
  if (norm == 0) return 0;
  if (norm > 0x1p-1000 && norm < 0x1p1000) {
    multiply(a, 1 / norm, size);
  } else {
    for (std::int64_t i = 0; i < size; ++i) a[i] /= norm;
  }
  return norm;
}

// Gram and Schmidt twice, the second time for orthogonality: count vectors become rows of Q, and the triangle says how.
void orthonormalise(std::vector<double>& vectors, std::int64_t count, double* triangle) {
  const auto size = static_cast<std::int64_t>(vectors.size()) / count;
  std::fill_n(triangle, count * count, 0.0);
  for (std::int64_t j = 0; j < count; ++j) {
    double* v = vectors.data() + j * size;
    double& norm = triangle[j * count + j];
    norm = normalise(v, size);
    if (count == 1 || norm == 0) continue;
    const double before = norm;
    double kept = 1;
    for (int pass = 0; pass < 2; ++pass) {
      for (std::int64_t i = 0; i < j; ++i) {
        const double* q = vectors.data() + i * size;
        const double share = dot(q, v, size);
        subtract(v, share, q, size);
        triangle[i * count + j] += before * kept * share;
      }
      kept *= normalise(v, size);
    }
    norm = before * kept;
    if (kept < dependent) {
      std::fill_n(v, size, 0.0);
      norm = 0;
    }
  }
}

Reference times_weight(const Executor& e, const Layer& layer, const Reference& h) {
  Reference z;
  z.values.resize(static_cast<std::size_t>(layer.n_out));
  z.exponent = h.exponent;
  e.matvec(
      e, {layer.n_out, layer.n_in, 1, layer.weight.format, layer.weight.data, false, h.values.data(), z.values.data()});
  renormalise(z);
  return z;
}

}  // namespace

Tangent::Tangent(const Executor& executor, std::vector<Factor> factors)
    : executor_(executor), factors_(std::move(factors)) {
  base::expects(!factors_.empty(), "jacobian: needs at least one factor");
  for (std::size_t l = 1; l < factors_.size(); ++l)
    base::expects(factors_[l - 1].n_out == factors_[l].n_in, "jacobian: factors do not chain");
}

void Tangent::apply(const Factor& f, bool transposed, std::int64_t count, std::vector<double>& vectors) const {
  const auto by_slope = [&](std::vector<double>& rows) {
    for (std::int64_t v = 0; v < count; ++v)
      for (std::int64_t i = 0; i < f.n_out; ++i) rows[static_cast<std::size_t>(v * f.n_out + i)] *= f.slope[i];
  };
  const std::int64_t from = transposed ? f.n_out : f.n_in, to = transposed ? f.n_in : f.n_out;
  std::vector<double> result(static_cast<std::size_t>(count * to));
  if (transposed) by_slope(vectors);
  for (std::int64_t v = 0; v < count; v += executor::matvec_vectors) {
    const std::int64_t some = std::min(executor::matvec_vectors, count - v);
    executor_.matvec(executor_, {f.n_out, f.n_in, some, f.weight.format, f.weight.data, transposed,
                                 vectors.data() + v * from, result.data() + v * to});
  }
  if (!transposed) by_slope(result);
  vectors = std::move(result);
}

void Tangent::forward(std::vector<double>& vectors, std::int64_t count, double* triangles, const Tick& tick) const {
  for (const Factor& factor : factors_) {
    tick();
    apply(factor, false, count, vectors);
    orthonormalise(vectors, count, triangles);
    triangles += count * count;
  }
}

void Tangent::backward(std::vector<double>& vectors, std::int64_t count, double* triangles, const Tick& tick) const {
  for (auto factor = factors_.rbegin(); factor != factors_.rend(); ++factor) {
    tick();
    apply(*factor, true, count, vectors);
    orthonormalise(vectors, count, triangles);
    triangles += count * count;
  }
}

std::vector<Values> slopes(const Executor& e, const std::vector<Layer>& layers, Values x, const Tick& tick) {
  std::vector<Values> result;
  Reference h{std::move(x), 0};
  renormalise(h);
  for (const Layer& layer : layers) {
    tick();
    Reference z = times_weight(e, layer, h);
    if (layer.bias.data) add_bias(z, decode_all(e, layer.bias));
    const Reference ones{Values(z.values.size(), 1.0), 0};
    Reference slope = reference_activation_backward(e, ones, z, layer.activation.id, layer.activation.alpha);
    for (double& s : slope.values) s = std::ldexp(s, static_cast<int>(slope.exponent));
    result.push_back(std::move(slope.values));
    h = reference_activation(e, z, layer.activation.id, layer.activation.alpha);
  }
  return result;
}

}  // namespace gradkern::chain
