#include "chain/attribution.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <memory>
#include <vector>

#include "base/thread_pool.hpp"
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

constexpr std::int64_t chunk = 4096, block = 256, worth_threads = 8192;

// body(begin, end, part) for each chunk on any thread, the parts merged in index order.
template <class Part, class Body, class Merge>
Part reduce_chunks(std::int64_t size, Body body, Merge merge) {
  std::vector<Part> parts(static_cast<std::size_t>(base::chunk_count(size, chunk)));
  base::parallel_for(static_cast<std::int64_t>(parts.size()), [&](std::int64_t c) {
    body(c * chunk, std::min(size, (c + 1) * chunk), parts[static_cast<std::size_t>(c)]);
  });
  Part total{};
  for (const Part& part : parts) merge(total, part);
  return total;
}

void add(Attribution& total, const Attribution& part) {
  for (int f = 0; f < fate_count; ++f) {
    total.counts[f] += part.counts[f];
    if (total.first[f] < 0) total.first[f] = part.first[f];
  }
  if (total.invalid_kind == InvalidKind::none) total.invalid_kind = part.invalid_kind;
}

// Entries that need no judgement: kept whatever they were before rounding, being normal, finite and below the largest finite
// value; or zero from the first.
struct Plain {
  std::int64_t kept = 0, structural = 0;
};

template <class F>
std::int64_t count_kept(const typename F::container* stored, std::int64_t count) {
  using L = formats::Layout<F>;
  using C = typename F::container;
  const C mask = static_cast<C>(L::sign - 1), low = static_cast<C>(L::smallest_normal);
  const C range = static_cast<C>(L::max_finite - L::smallest_normal);
  std::conditional_t<sizeof(C) == 1, std::uint16_t, C> outside = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const C magnitude = static_cast<C>((stored[i] >> F::container_shift) & mask);
    outside = static_cast<decltype(outside)>(outside + (static_cast<C>(magnitude - low) >= range));
  }
  return count - outside;
}

// was_zero(i): before rounding, and in truth.
template <class F, class WasZero>
Plain count_plain(const typename F::container* stored, std::int64_t count, WasZero was_zero) {
  Plain plain{count_kept<F>(stored, count), 0};
  if (plain.kept == count) return plain;
  using C = typename F::container;
  constexpr C mask = static_cast<C>((formats::Layout<F>::sign - 1) << F::container_shift);
  int structural = 0;
  for (int i = 0; i < static_cast<int>(count); ++i) structural += ((stored[i] & mask) == 0) & was_zero(i);
  plain.structural = structural;
  return plain;
}

void add_fate(Attribution& result, Fate fate, std::int64_t index, std::int64_t count = 1) {
  result.counts[static_cast<int>(fate)] += count;
  auto& first = result.first[static_cast<int>(fate)];
  if (first < 0) first = index;
}

// Blocks of plain entries are counted, others judged one by one.
template <class F, class WasZero, class JudgeEntry>
void judge_blocks(const typename F::container* stored, std::int64_t begin, std::int64_t end, WasZero was_zero,
                  JudgeEntry judge, Attribution& result) {
  const auto seen = [&](Fate fate) { return result.first[static_cast<int>(fate)] >= 0; };
  for (std::int64_t i = begin; i < end; i += block) {
    const std::int64_t next = std::min(end, i + block), count = next - i;
    const Plain plain = count_plain<F>(stored + i, count, [&](std::int64_t j) { return was_zero(i + j); });
    const bool one_kind = plain.kept == count || plain.structural == count;
    if (plain.kept + plain.structural < count || !(one_kind || (seen(Fate::kept) && seen(Fate::structural)))) {
      for (std::int64_t j = i; j < next; ++j) judge(j);
      continue;
    }
    if (plain.kept) add_fate(result, Fate::kept, i, plain.kept);
    if (plain.structural) add_fate(result, Fate::structural, i, plain.structural);
  }
}

// wide[i]: the value before rounding.
template <class T, class CauseOf>
void judge_range(const T* wide, const Stored& stored, const Rounded& how, const Reference& reference, CauseOf cause_of,
                 std::int64_t begin, std::int64_t end, Attribution& result) {
  formats::visit(stored.format, [&](auto format) {
    using F = decltype(format);
    using L = formats::Layout<F>;
    const auto* data = static_cast<const typename F::container*>(stored.data());
    const double* const truth = reference.values.data();
    const double smallest_normal = formats::exp2i(L::min_exponent);
    const double largest = formats::decode<F>(static_cast<typename F::container>(L::max_finite << F::container_shift));
    const auto judge = [&](std::int64_t i) {
      const double w = wide[i], v = formats::decode<F>(data[i]);
      Fate fate = Fate::kept;
      if (!std::isfinite(v)) {
        if (std::isfinite(w)) {
          fate = Fate::overflow;
        } else {
          const Cause cause = cause_of(i, w);
          fate = cause.fate;
          if (result.invalid_kind == InvalidKind::none) result.invalid_kind = cause.kind;
        }
      } else if (v == 0) {
        if (w != 0) {
          fate = Fate::flushed;
        } else if (truth[i] == 0) {
          fate = Fate::structural;
        } else {
          fate = cause_of(i, w).fate;
        }
      } else if (std::abs(v) < smallest_normal) {
        fate = Fate::subnormal;
      } else if (std::abs(v) == largest && std::abs(w) > largest && clamped<F>(w, how, i)) {
        fate = Fate::overflow;
      }
      add_fate(result, fate, i);
    };
    const auto was_zero = [&](std::int64_t i) { return (wide[i] == 0) & (truth[i] == 0); };
    judge_blocks<F>(data, begin, end, was_zero, judge, result);
  });
}

template <class CauseOf>
Judge judge(const Source& wide, const Stored& stored, const Rounded& how, const Reference& reference,
            CauseOf cause_of) {
  return [=, &stored, &reference](std::int64_t begin, std::int64_t end, Attribution& part) {
    if (wide.format == FormatId::float32) {
      judge_range(static_cast<const float*>(wide.data), stored, how, reference, cause_of, begin, end, part);
    } else {
      judge_range(static_cast<const double*>(wide.data), stored, how, reference, cause_of, begin, end, part);
    }
  };
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

// Calls body(x, w) for every term of one entry while it returns true: those of the product it continues first, the bias
// last.
template <class Body>
bool for_terms(const executor::ProductArgs& p, std::int64_t entry, Body body) {
  if (p.continued && !for_terms(*p.continued, entry, body)) return false;
  const std::int64_t i = entry / p.n, j = entry % p.n;
  const Reader a{p.a.format, p.a.data}, b{p.b.format, p.b.data}, bias{p.bias_format, p.bias};
  for (std::int64_t k = 0; k < p.k; ++k) {
    const double x = operand(p, a(i * p.a.row_stride + k * p.a.column_stride));
    if (!body(x, operand(p, b(k * p.b.row_stride + j * p.b.column_stride)))) return false;
  }
  return !p.bias || body(1.0, bias(i * p.bias_row + j));
}

// Zero from terms that are not: below the accumulator's range, or annihilated?
Fate fate_of_zero_sum(const executor::ProductArgs& p, std::int64_t entry) {
  int top = INT_MIN;
  for_terms(p, entry, [&](double x, double w) {
    if (x != 0 && w != 0) top = std::max(top, term_of(x, w).exponent);
    return true;
  });
  if (top == INT_MIN) return Fate::inherited;
  bool positive = false, negative = false;
  double sum = 0;  // in units of 2^top
  for_terms(p, entry, [&](double x, double w) {
    const Term term = term_of(x, w);
    positive |= term.significand > 0;
    negative |= term.significand < 0;
    if (term.significand != 0) sum += std::ldexp(term.significand, std::max(-2000, term.exponent - top));
    return true;
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
    return !nan && !(infinite && std::isinf(wide));  // either decides
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

Attribution attribute(std::int64_t size, const Judge& judge, const std::function<void()>& besides) {
  Attribution total{};
  if (size < worth_threads) {
    besides();
    judge(0, size, total);
    return total;
  }
  std::vector<Attribution> parts(static_cast<std::size_t>(base::chunk_count(size, chunk)));
  base::parallel_for(static_cast<std::int64_t>(parts.size()) + 1, [&](std::int64_t task) {
    if (task == 0) return besides();
    const std::int64_t c = task - 1;
    judge(c * chunk, std::min(size, (c + 1) * chunk), parts[static_cast<std::size_t>(c)]);
  });
  for (const Attribution& part : parts) add(total, part);
  return total;
}

Judge judge_given(const Executor& e, const Source& source, double scale, const Stored& stored, const Rounded& how,
                  const Reference& reference) {
  const auto given = std::make_shared<const Values>(decode_all(e, source));
  auto wide = given;
  if (scale != 1) {
    Values scaled(*given);
    for (double& value : scaled) value *= scale;
    wide = std::make_shared<const Values>(std::move(scaled));
  }
  return judge({FormatId::float64, wide->data(), source.size}, stored, how, reference,
               [given, wide](std::int64_t i, double product) {
                 const double x = (*given)[static_cast<std::size_t>(i)];
                 if (x == 0) return Cause{Fate::cancelled};
                 if (!std::isfinite(x)) return Cause{Fate::inherited};
                 return Cause{product == 0 ? Fate::flushed : Fate::overflow};
               });
}

Judge judge_product(const executor::ProductArgs& product, const Source& wide, const Stored& stored, const Rounded& how,
                    const Reference& reference) {
  return judge(wide, stored, how, reference,
               [&product](std::int64_t i, double value) { return product_cause(product, value, i); });
}

Judge judge_activation(const executor::ActivationArgs& args, const Source& wide, const Stored& stored,
                       const Rounded& how, const Reference& reference) {
  return judge(wide, stored, how, reference,
               [&args](std::int64_t i, double value) { return activation_cause(args, value, i); });
}

Attribution attribute_exact(const Stored& stored, const Summary& summary) {
  if (summary.size > 0 && summary.zero + summary.subnormal + summary.nan + summary.pos_inf + summary.neg_inf == 0) {
    Attribution all;
    add_fate(all, Fate::kept, 0, summary.size);
    return all;
  }
  const Judge judge_all = [&stored](std::int64_t begin, std::int64_t end, Attribution& part) {
    formats::visit(stored.format, [&](auto format) {
      using F = decltype(format);
      const auto* data = static_cast<const typename F::container*>(stored.data());
      const double smallest_normal = formats::exp2i(formats::Layout<F>::min_exponent);
      const auto judge = [&](std::int64_t i) {
        const double a = std::abs(formats::decode<F>(data[i]));
        add_fate(part,
                 a == 0                ? Fate::structural
                 : a < smallest_normal ? Fate::subnormal
                 : a < __builtin_inf() ? Fate::kept
                                       : Fate::inherited,
                 i);
      };
      judge_blocks<F>(data, begin, end, [](std::int64_t) { return true; }, judge, part);
    });
  };
  return attribute(stored.size, judge_all, [] {});
}

std::int64_t count_stalled(const Stored& stored, const Reference& reference, const Stored& before,
                           const Reference& reference_before) {
  if (stored.size != before.size || stored.format != before.format) return 0;
  const std::int64_t fall = reference.exponent - reference_before.exponent;
  const int power = static_cast<int>(std::max<std::int64_t>(-4000, std::min<std::int64_t>(4000, fall)));
  const auto range = [&](std::int64_t begin, std::int64_t end, std::int64_t& stalled) {
    formats::visit(stored.format, [&](auto format) {
      using F = decltype(format);
      using L = formats::Layout<F>;
      const auto* now = static_cast<const typename F::container*>(stored.data());
      const auto* then = static_cast<const typename F::container*>(before.data());
      for (std::int64_t i = begin; i < end; ++i) {
        const std::uint64_t magnitude = (std::uint64_t(now[i]) >> F::container_shift) & (L::sign - 1);
        if (now[i] != then[i] || magnitude == 0 || magnitude >= L::smallest_normal) continue;
        const double truth = std::abs(reference.values[static_cast<std::size_t>(i)]);
        const double truth_before = std::abs(reference_before.values[static_cast<std::size_t>(i)]);
        stalled += std::ldexp(truth, power) < truth_before;
      }
    });
  };
  return reduce_chunks<std::int64_t>(stored.size, range, [](std::int64_t& total, std::int64_t part) { total += part; });
}

double relative_error(const Executor& e, const Stored& stored, double log2_scale, const Reference& reference) {
  const double shift = -log2_scale - static_cast<double>(reference.exponent);
  const int power = static_cast<int>(std::max(-5000.0, std::min(5000.0, shift)));
  const double scale = std::abs(power) <= 1000 ? formats::exp2i(power) : 0;
  executor::ErrorSums sums;
  e.errors(e, {stored.size, stored.format, stored.data(), reference.values.data(), scale, power}, sums);
  if (sums.nonfinite) return std::nan("");
  if (sums.infinite) return __builtin_inf();
  // The largest range decides; the others are below its last bit or add.
  const auto root = [](const ops::SquareSum& s) {
    if (s.big > 0) return std::sqrt(s.big + s.medium * 0x1p-600 * 0x1p-600) * 0x1p600;
    if (s.medium > 0) return std::sqrt(s.medium + s.small * 0x1p-600 * 0x1p-600);
    return std::sqrt(s.small) * 0x1p-600;
  };
  const double error = root(sums.error), truth = root(sums.truth);
  if (truth == 0) return error == 0 ? 0.0 : __builtin_inf();
  return error / truth;
}

}  // namespace gradkern::chain
