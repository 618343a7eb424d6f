#include "chain/attribution.hpp"

#include <algorithm>
#include <climits>
#include <cmath>

#include "formats/decode.hpp"

namespace gradkern::chain {
namespace {

using ops::ActivationId;

// element(i) decoded from any format.
struct Reader {
  FormatId format;
  const void* data;
  double operator()(std::int64_t index) const {
    return formats::visit(format, [&](auto f) {
      using F = decltype(f);
      return formats::decode<F>(static_cast<const typename F::container*>(data)[index]);
    });
  }
};

// Whether rounding w gave the largest finite value because it was clamped, rather than because it was near.
template <class F>
bool clamped(double w, const Rounded& how, std::int64_t index) {
  return formats::encode<F>(w, how.mode, formats::draw(how.mode, how.stream, index)).event == formats::Event::overflow;
}

template <class CauseOf>
Attribution attribute(const double* wide, const Stored& stored, const Rounded& how, const Reference& reference,
                      CauseOf cause_of) {
  Attribution result;
  formats::visit(stored.format, [&](auto format) {
    using F = decltype(format);
    using L = formats::Layout<F>;
    const auto* data = static_cast<const typename F::container*>(stored.data());
    const double smallest_normal = formats::exp2i(L::min_exponent);
    const double largest = formats::decode<F>(static_cast<typename F::container>(L::max_finite << F::container_shift));
    for (std::int64_t i = 0; i < stored.size; ++i) {
      const double w = wide[i], v = formats::decode<F>(data[i]);
      Fate fate = Fate::kept;
      if (!std::isfinite(v)) {
        if (std::isfinite(w)) {
          fate = Fate::overflow;
        } else {
          const Cause cause = cause_of(i);
          fate = cause.fate;
          if (result.invalid_kind == InvalidKind::none) result.invalid_kind = cause.kind;
        }
      } else if (v == 0) {
        if (w != 0) {
          fate = Fate::flushed;
        } else if (reference.values[static_cast<std::size_t>(i)] == 0) {
          fate = Fate::structural;
        } else {
          fate = cause_of(i).fate;
        }
      } else if (std::abs(v) < smallest_normal) {
        fate = Fate::subnormal;
      } else if (std::abs(v) == largest && std::abs(w) > largest && clamped<F>(w, how, i)) {
        fate = Fate::overflow;
      }
      ++result.counts[static_cast<int>(fate)];
      auto& first = result.first[static_cast<int>(fate)];
      if (first < 0) first = i;
    }
  });
  return result;
}

// One factor pair of a dot product, split so that products of any size can be compared: significand * 2^exponent.
struct Term {
  double significand;
  int exponent;
};

Term term_of(double x, double w) {
  int x_exponent = 0, w_exponent = 0;
  const double significand = std::frexp(x, &x_exponent) * std::frexp(w, &w_exponent);
  return {significand, x_exponent + w_exponent};
}

// x as the product sees it.
double operand(const executor::ProductArgs& p, double x) {
  return p.operands == FormatId::tfloat32 ? ops::round_to_nearest_even<formats::tfloat32>(x) : x;
}

// Calls body(x, w) for every term of one entry, the bias as the last.
template <class Body>
void for_terms(const executor::ProductArgs& p, std::int64_t entry, Body body) {
  const std::int64_t i = entry / p.n, j = entry % p.n;
  const Reader a{p.a.format, p.a.data}, b{p.b.format, p.b.data}, bias{p.bias_format, p.bias};
  for (std::int64_t k = 0; k < p.k; ++k) {
    body(operand(p, a(i * p.a.row_stride + k * p.a.column_stride)),
         operand(p, b(k * p.b.row_stride + j * p.b.column_stride)));
  }
  if (p.bias) body(1.0, bias(j));
}

// Zero from terms that are not: below the accumulator's range, or annihilated?
Fate fate_of_zero_sum(const executor::ProductArgs& p, std::int64_t entry) {
  int top = INT_MIN;
  for_terms(p, entry, [&](double x, double w) {
    if (x != 0 && w != 0) top = std::max(top, term_of(x, w).exponent);
  });
  if (top == INT_MIN) return Fate::inherited;
  bool positive = false, negative = false;
  double sum = 0;  // in units of 2^top
  for_terms(p, entry, [&](double x, double w) {
    const Term term = term_of(x, w);
    positive |= term.significand > 0;
    negative |= term.significand < 0;
    if (term.significand != 0) sum += std::ldexp(term.significand, std::max(-2000, term.exponent - top));
  });
  const int quantum = formats::visit(p.accumulate, [](auto f) { return formats::Layout<decltype(f)>::min_quantum; });
  const bool too_small = top < quantum || (sum != 0 && top + std::ilogb(sum) < quantum);
  return positive != negative || too_small ? Fate::flushed : Fate::cancelled;
}

Cause product_cause(const executor::ProductArgs& p, double wide, std::int64_t entry) {
  if (wide == 0) return {fate_of_zero_sum(p, entry)};
  bool nan = false, infinite = false, zero_times_inf = false;
  for_terms(p, entry, [&](double x, double w) {
    nan |= std::isnan(x) || std::isnan(w);
    infinite |= std::isinf(x) || std::isinf(w);
    zero_times_inf |= (std::isinf(x) && w == 0) || (x == 0 && std::isinf(w));
  });
  if (std::isinf(wide)) return {infinite ? Fate::inherited : Fate::overflow};
  if (nan) return {Fate::inherited};
  return {Fate::invalid, zero_times_inf ? InvalidKind::zero_times_inf : InvalidKind::inf_minus_inf};
}

bool has_exact_zeros(ActivationId activation, double alpha) {
  const bool takes_alpha = activation == ActivationId::leaky_relu || activation == ActivationId::elu;
  return activation == ActivationId::relu || (takes_alpha && alpha == 0);
}

Cause activation_cause(const executor::ActivationArgs& args, double wide, std::int64_t i) {
  const double z = Reader{args.format, args.pre_activation}(i);
  if (!args.grad_output) {
    if (!std::isfinite(z)) return {Fate::inherited};
    if (!std::isfinite(wide)) return {Fate::overflow};
    return {z == 0 || has_exact_zeros(args.activation, args.alpha) ? Fate::inherited : Fate::flushed};
  }
  const double dh = Reader{args.format, args.grad_output}(i);
  const double slope = Reader{executor::wide_format(args.format), args.slope}(i);
  if (std::isnan(wide)) {
    const bool made_here = !std::isnan(dh) && !std::isnan(z) && !std::isnan(slope);
    return made_here ? Cause{Fate::invalid, InvalidKind::zero_times_inf} : Cause{Fate::inherited};
  }
  if (std::isinf(wide)) return {std::isinf(dh) ? Fate::inherited : Fate::overflow};
  if (dh == 0 || !std::isfinite(z) || has_exact_zeros(args.activation, args.alpha)) return {Fate::inherited};
  return {slope == 0 && args.output ? Fate::cancelled : Fate::flushed};
}

}  // namespace

Attribution attribute_given(const double* given, double scale, const Stored& stored, const Rounded& how,
                            const Reference& reference) {
  std::vector<double> scaled(given, given + stored.size);
  for (double& value : scaled) value *= scale;
  return attribute(scaled.data(), stored, how, reference, [&](std::int64_t i) {
    if (given[i] == 0) return Cause{Fate::cancelled};
    if (!std::isfinite(given[i])) return Cause{Fate::inherited};
    return Cause{scaled[static_cast<std::size_t>(i)] == 0 ? Fate::flushed : Fate::overflow};
  });
}

Attribution attribute_product(const executor::ProductArgs& product, const double* wide, const Stored& stored,
                              const Rounded& how, const Reference& reference) {
  return attribute(wide, stored, how, reference, [&](std::int64_t i) { return product_cause(product, wide[i], i); });
}

Attribution attribute_activation(const executor::ActivationArgs& args, const double* wide, const Stored& stored,
                                 const Rounded& how, const Reference& reference) {
  return attribute(wide, stored, how, reference, [&](std::int64_t i) { return activation_cause(args, wide[i], i); });
}

std::int64_t count_stalled(const Stored& stored, const Reference& reference, const Stored& before,
                           const Reference& reference_before) {
  if (stored.size != before.size || stored.format != before.format) return 0;
  std::int64_t stalled = 0;
  const std::int64_t fall = reference.exponent - reference_before.exponent;
  formats::visit(stored.format, [&](auto format) {
    using F = decltype(format);
    using L = formats::Layout<F>;
    const auto* now = static_cast<const typename F::container*>(stored.data());
    const auto* then = static_cast<const typename F::container*>(before.data());
    for (std::int64_t i = 0; i < stored.size; ++i) {
      const std::uint64_t magnitude = (std::uint64_t(now[i]) >> F::container_shift) & (L::sign - 1);
      if (now[i] != then[i] || magnitude == 0 || magnitude >= L::smallest_normal) continue;
      const double truth = std::abs(reference.values[static_cast<std::size_t>(i)]);
      const double truth_before = std::abs(reference_before.values[static_cast<std::size_t>(i)]);
      stalled +=
          std::ldexp(truth, static_cast<int>(std::max<std::int64_t>(-4000, std::min<std::int64_t>(4000, fall)))) <
          truth_before;
    }
  });
  return stalled;
}

double relative_error(const Stored& stored, double log2_scale, const Reference& reference) {
  ops::SquareSum error, truth;
  const Reader read{stored.format, stored.data()};
  const double shift = -log2_scale - static_cast<double>(reference.exponent);
  const int power = static_cast<int>(std::max(-5000.0, std::min(5000.0, shift)));
  for (std::int64_t i = 0; i < stored.size; ++i) {
    const double v = read(i), r = reference.values[static_cast<std::size_t>(i)];
    if (!std::isfinite(v)) return std::nan("");
    const double difference = std::ldexp(v, power) - r;
    if (!std::isfinite(difference)) return __builtin_inf();
    error.add(difference);
    truth.add(r);
  }
  const auto root =
      [](const ops::SquareSum& s) {  // the largest range decides; the others are below its last bit or add
        if (s.big > 0) return std::sqrt(s.big + s.medium * 0x1p-600 * 0x1p-600) * 0x1p600;
        if (s.medium > 0) return std::sqrt(s.medium + s.small * 0x1p-600 * 0x1p-600);
        return std::sqrt(s.small) * 0x1p-600;
      };
  const double e = root(error), t = root(truth);
  if (t == 0) return e == 0 ? 0.0 : __builtin_inf();
  return e / t;
}

}  // namespace gradkern::chain
