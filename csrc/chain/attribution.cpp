#include "chain/attribution.hpp"

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

template <class CauseOf>
Attribution attribute(const double* wide, const Stored& stored, const Reference& reference, CauseOf cause_of) {
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
      } else if (std::abs(v) == largest && std::abs(w) > largest &&
                 std::abs(w) - largest >=
                     formats::exp2i(F::bias - (F::has_inf ? L::fraction_bits : L::fraction_bits - 1) - 1)) {
        fate = Fate::overflow;
      }
      ++result.counts[static_cast<int>(fate)];
      auto& first = result.first[static_cast<int>(fate)];
      if (first < 0) first = i;
    }
  });
  return result;
}

// Terms x * w of one dot product, bias as the last one.
Cause product_cause(const executor::ProductArgs& p, std::int64_t entry) {
  const std::int64_t i = entry / p.n, j = entry % p.n;
  const Reader a{p.a.format, p.a.data}, b{p.b.format, p.b.data}, bias{p.bias_format, p.bias};
  bool nan = false, infinite = false, zero_times_inf = false, nonzero = false;
  double sum = 0;
  for (std::int64_t k = 0; k < p.k + (p.bias != nullptr); ++k) {
    const double x = k < p.k ? a(i * p.a.row_stride + k * p.a.column_stride) : 1.0;
    const double w = k < p.k ? b(k * p.b.row_stride + j * p.b.column_stride) : bias(j);
    nan |= std::isnan(x) || std::isnan(w);
    infinite |= std::isinf(x) || std::isinf(w);
    zero_times_inf |= (std::isinf(x) && w == 0) || (x == 0 && std::isinf(w));
    nonzero |= x != 0 && w != 0;
    sum = std::fma(x, w, sum);
  }
  const bool result_nan = std::isnan(p.wide[entry]), result_infinite = std::isinf(p.wide[entry]);
  if (result_nan) {
    if (nan) return {Fate::inherited};
    return {Fate::invalid, zero_times_inf ? InvalidKind::zero_times_inf : InvalidKind::inf_minus_inf};
  }
  if (result_infinite) return {infinite ? Fate::inherited : Fate::overflow};
  if (!nonzero) return {Fate::inherited};
  const int quantum = formats::visit(p.accumulate, [](auto f) { return formats::Layout<decltype(f)>::min_quantum; });
  return {sum == 0 || std::abs(sum) >= formats::exp2i(quantum) ? Fate::cancelled : Fate::flushed};
}

bool has_exact_zeros(ActivationId activation, double alpha) {
  return activation == ActivationId::relu || (activation == ActivationId::leaky_relu && alpha == 0);
}

Cause activation_cause(const executor::ActivationArgs& args, std::int64_t i) {
  const double z = Reader{args.format, args.pre_activation}(i);
  const double wide = args.wide[i];
  if (!args.grad_output) {
    if (!std::isfinite(z)) return {Fate::inherited};
    if (!std::isfinite(wide)) return {Fate::overflow};
    return {z == 0 || has_exact_zeros(args.activation, args.alpha) ? Fate::inherited : Fate::flushed};
  }
  const double dh = Reader{args.format, args.grad_output}(i), slope = args.slope[i];
  if (std::isnan(wide)) {
    const bool made_here = !std::isnan(dh) && !std::isnan(z) && !std::isnan(slope);
    return made_here ? Cause{Fate::invalid, InvalidKind::zero_times_inf} : Cause{Fate::inherited};
  }
  if (std::isinf(wide)) return {std::isinf(dh) ? Fate::inherited : Fate::overflow};
  if (dh == 0 || !std::isfinite(z) || has_exact_zeros(args.activation, args.alpha)) return {Fate::inherited};
  return {slope == 0 && args.output ? Fate::cancelled : Fate::flushed};
}

}  // namespace

Attribution attribute_given(const double* wide, const Stored& stored, const Reference& reference) {
  return attribute(wide, stored, reference,
                   [&](std::int64_t i) { return Cause{std::isfinite(wide[i]) ? Fate::cancelled : Fate::inherited}; });
}

Attribution attribute_product(const executor::ProductArgs& product, const Stored& stored, const Reference& reference) {
  return attribute(product.wide, stored, reference, [&](std::int64_t i) { return product_cause(product, i); });
}

Attribution attribute_activation(const executor::ActivationArgs& args, const Stored& stored,
                                 const Reference& reference) {
  return attribute(args.wide, stored, reference, [&](std::int64_t i) { return activation_cause(args, i); });
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
