#include "chain/recorder.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/expects.hpp"
#include "base/thread_pool.hpp"

namespace gradkern::chain {
namespace {

// Roles whose tensors follow one another along the chain, so that a value can stall.
bool shows_stalls(Role role) {
  return role == Role::pre_activation || role == Role::activation || role == Role::grad_activation ||
         role == Role::grad_pre_activation;
}

}  // namespace

ops::RoundingCounts unchanged(const Summary& s) {
  using formats::Event;
  ops::RoundingCounts counts;
  const auto set = [&](Event event, std::int64_t count) { counts.events[static_cast<int>(event)] = count; };
  set(Event::nan, s.nan);
  set(Event::inf, s.pos_inf + s.neg_inf);
  set(Event::subnormal, s.subnormal);
  set(Event::exact, s.size - s.nan - s.pos_inf - s.neg_inf - s.subnormal);
  counts.signal = s.moments.squares;
  return counts;
}

executor::ProductArgs completed(executor::ProductArgs args, const Arithmetic& arithmetic, Role role, void* wide) {
  // A bias gradient is a sum, not a product: nothing is rounded to an operand format. A unit sums by multiplying with
  // ones, and takes no other.
  const bool is_sum = role == Role::grad_bias && !arithmetic.unit;
  args.operands = is_sum ? arithmetic.storage : arithmetic.operands;
  args.unit = arithmetic.unit;
  args.accumulate = arithmetic.accumulate;
  args.bias_format = arithmetic.storage;
  args.wide = wide;
  return args;
}

executor::ActivationArgs activation_args(const Arithmetic& arithmetic, Activation activation, std::int64_t size,
                                         const void* z, void* wide) {
  executor::ActivationArgs args{};
  args.size = size;
  args.activation = activation.id;
  args.alpha = activation.alpha;
  args.format = arithmetic.storage;
  args.pre_activation = z;
  args.wide = wide;
  return args;
}

Recorder::Recorder(const Executor& executor, Arithmetic arithmetic, double loss_scale, bool with_reference,
                   bool keep_tensors, bool measured)
    : executor_(executor),
      arithmetic_(arithmetic),
      loss_scale_(loss_scale),
      log2_loss_scale_(std::log2(loss_scale)),
      with_reference_(with_reference),
      keep_tensors_(keep_tensors),
      measured_(measured) {
  base::expects(measured || !(with_reference || keep_tensors), "probe: only what is measured has a reference");
}

void Recorder::round(Stored& stored, const Source& wide, double scale, const Rounded& how,
                     ops::RoundingCounts& counts) {
  stored.resize(arithmetic_.storage, wide.size);
  executor_.convert(executor_, {wide.size, wide.format, arithmetic_.storage, wide.data, stored.writable(), scale,
                                how.mode, how.stream, measured_ ? &counts : nullptr});
}

Stored& Recorder::wide_for(Stored& result, Stored& scratch, FormatId format, std::int64_t size) {
  Stored& wide = is_storage(format) ? result : scratch;
  wide.resize(format, size);
  return wide;
}

void Recorder::store(Stored& stored, const Source& wide, double scale, std::int64_t layer, Role role,
                     const Reference* truth, double log2_scale, const JudgeOf& judge_of) {
  Record record{layer, role};
  const Rounded how{arithmetic_.mode, stream_++};
  const bool in_place = wide.data == stored.data();
  if (!in_place) round(stored, wide, scale, how, record.rounding);
  if (truth) {
    record.reference_exponent = truth->exponent;
    const auto error = [&] { record.relative_error = relative_error(executor_, stored, log2_scale, *truth); };
    const bool elsewhere = executor_.device != nullptr;  // a device is the calling thread's
    record.attribution =
        attribute(stored.size, judge_of(wide, stored, how, *truth), elsewhere ? std::function<void()>([] {}) : error);
    if (elsewhere) error();
    if (shows_stalls(role))
      record.attribution.stalled = stalled_since(before_[static_cast<int>(role)], stored, *truth, record.attribution);
  }
  if (keep_tensors_) {
    record.tensor.assign(stored);
    if (truth) record.truth = *truth;
  }
  if (measured_) pending_.push_back({records_.size(), &stored, truth, in_place});
  records_.push_back(std::move(record));
}

// Only subnormal values stall: where there are none, nothing is kept to compare with.
std::int64_t Recorder::stalled_since(Before& before, const Stored& stored, const Reference& reference,
                                     const Attribution& attribution) {
  if (attribution.counts[static_cast<int>(Fate::subnormal)] == 0) {
    before = {};
    return 0;
  }
  const std::int64_t stalled = count_stalled(stored, reference, before.stored, before.reference);
  before.stored.assign(stored);
  before.reference = reference;
  return stalled;
}

void Recorder::drop_payloads(Stored& stored, Record& record) {
  ops::RoundingCounts counts;
  round(stored, stored.source(), 1, {arithmetic_.mode, 0}, counts);
  if (keep_tensors_) record.tensor.assign(stored);
}

void Recorder::measure(const Source& next) {
  if (pending_.empty()) return;
  std::vector<Source> tensors;
  for (const Pending& p : pending_) {
    tensors.push_back(p.stored->source());
    if (p.truth) tensors.push_back({FormatId::float64, p.truth->values.data(), p.stored->size});
  }
  std::vector<Summary> summaries = summarise(executor_, tensors, next);
  auto summary = summaries.begin();
  for (const Pending& p : pending_) {
    Record& record = records_[p.record];
    record.stored = std::move(*summary++);
    if (p.in_place) record.rounding = unchanged(record.stored);
    if (p.stored->given && record.stored.nan) drop_payloads(*p.stored, record);
    if (p.truth) record.reference = std::move(*summary++);
    if (p.exact) {
      record.attribution = attribute_exact(*p.stored, record.stored);
      if (record.attribution.counts[static_cast<int>(Fate::inherited)] != 0) record.relative_error = std::nan("");
      record.reference = record.stored;
      if (p.stored->format != FormatId::float64) record.reference.subnormal = 0;  // it is float64's
    }
  }
  pending_.clear();
  arguments_.clear();
}

void Recorder::given(Stored& stored, const Source& source, double scale, std::int64_t layer, Role role,
                     const Reference* truth) {
  if (is_storage(source.format) && scale == 1 && !stored.place) stored.borrow(source);
  store(stored, source, scale, layer, role, truth, std::log2(scale),
        [&](const Source& given, const Stored& s, const Rounded& how, const Reference& r) {
          return judge_given(executor_, given, scale, s, how, r);
        });
}

bool Recorder::is_exact(const Stored& stored, const Source& source) const {
  return is_storage(source.format) && !stored.place &&
         formats::visit(source.format, [&](auto f) { return !ops::measured_by_pattern<decltype(f)>(source.size); });
}

void Recorder::argument(Stored& stored, const Source& source, std::int64_t layer, Role role) {
  if (with_reference_ && (keep_tensors_ || !is_exact(stored, source))) {
    arguments_.push_back(std::make_unique<Reference>(Reference{decode_all(host(), source), 0}));
    return given(stored, source, 1.0, layer, role, arguments_.back().get());
  }
  given(stored, source, 1.0, layer, role, nullptr);
  if (with_reference_) pending_.back().exact = true;
}

void Recorder::round(Stored& stored, const Source& wide) {
  ops::RoundingCounts counts;
  round(stored, wide, 1.0, {arithmetic_.mode, stream_++}, counts);
}

void Recorder::products(std::vector<Product> list, double log2_scale) {
  std::vector<executor::ProductArgs> args;
  wide_.resize(std::max(wide_.size(), list.size()));
  const FormatId format = executor::wide_format(arithmetic_.accumulate);
  for (std::size_t i = 0; i < list.size(); ++i) {
    Product& p = list[i];
    if (!p.wide) p.wide = &wide_for(*p.result, wide_[i], format, p.args.m * p.args.n);
    p.args = completed(p.args, arithmetic_, p.role, p.wide->writable());
    args.push_back(p.args);
  }
  executor_.products(executor_, args.data(), static_cast<std::int64_t>(args.size()));
  for (const Product& p : list)
    store(*p.result, p.wide->source(), 1.0, p.layer, p.role, with_reference_ ? p.truth : nullptr, log2_scale,
          [&](const Source& values, const Stored& s, const Rounded& how, const Reference& r) {
            return judge_product(p.args, values, s, how, r);
          });
}

void Recorder::sums(executor::ProductArgs args, Role role, Stored& wide) const {
  wide.resize(executor::wide_format(arithmetic_.accumulate), args.m * args.n);
  args = completed(args, arithmetic_, role, wide.writable());
  executor_.products(executor_, &args, 1);
}

void Recorder::phi(Activation activation, const Stored& z, Stored& wide) const {
  executor_.activation_forward(executor_, activation_forward_args(activation, z, wide));
}

void Recorder::phi_backward(Activation activation, const Stored& dh, const Stored& z, const Stored& h, Stored& wide,
                            Stored* slope) const {
  executor_.activation_backward(executor_, activation_backward_args(activation, dh, z, h, wide, slope));
}

executor::ActivationArgs Recorder::activation_forward_args(Activation activation, const Stored& z, Stored& wide) const {
  wide.resize(executor::wide_format(arithmetic_.storage), z.size);
  return activation_args(arithmetic_, activation, z.size, z.data(), wide.writable());
}

executor::ActivationArgs Recorder::activation_backward_args(Activation activation, const Stored& dh, const Stored& z,
                                                            const Stored& h, Stored& wide, Stored* slope) const {
  executor::ActivationArgs args = activation_forward_args(activation, z, wide);
  args.grad_output = dh.data();
  args.output = arithmetic_.stored_output_derivative ? h.data() : nullptr;
  if (slope) {
    slope->resize(wide.format, dh.size);
    args.slope = slope->writable();
  }
  return args;
}

void Recorder::activate(Activation activation, const Stored& z, Stored& h, std::int64_t layer, const Reference* truth) {
  Stored& wide = wide_for(h, wide_[0], executor::wide_format(arithmetic_.storage), z.size);
  const executor::ActivationArgs args = activation_forward_args(activation, z, wide);
  executor_.activation_forward(executor_, args);
  store(h, wide.source(), 1.0, layer, Role::activation, truth, 0,
        [&](const Source& values, const Stored& s, const Rounded& how, const Reference& r) {
          return judge_activation(args, values, s, how, r);
        });
}

void Recorder::activate_backward(Activation activation, const Stored& dh, const Stored& z, const Stored& h, Stored& dz,
                                 std::int64_t layer, const Reference* truth) {
  Stored& wide = wide_for(dz, wide_[0], executor::wide_format(arithmetic_.storage), dh.size);
  const executor::ActivationArgs args =
      activation_backward_args(activation, dh, z, h, wide, with_reference_ ? &slope_ : nullptr);
  executor_.activation_backward(executor_, args);
  store(dz, wide.source(), 1.0, layer, Role::grad_pre_activation, truth, log2_loss_scale_,
        [&](const Source& values, const Stored& s, const Rounded& how, const Reference& r) {
          return judge_activation(args, values, s, how, r);
        });
}

void Recorder::settle(Stored& stored, const Stored& wide) const {
  if (stored.data() == wide.data()) return;
  executor_.convert(executor_, {wide.size, wide.format, arithmetic_.storage, wide.data(), stored.writable(), 1.0,
                                arithmetic_.mode, 0, nullptr});
}

void Recorder::record(const std::vector<Complete>& tensors) {
  const std::size_t first = records_.size();
  for (const Complete& t : tensors) records_.push_back({t.layer, t.role});
  base::parallel_for(static_cast<std::int64_t>(tensors.size()), [&](std::int64_t i) {
    const Complete& t = tensors[static_cast<std::size_t>(i)];
    if (t.make) t.make();
    if (!measured_) {
      if (!t.settled) settle(*t.stored, *t.wide);
      return;
    }
    Record& record = records_[first + static_cast<std::size_t>(i)];
    const bool in_place = t.wide->data() == t.stored->data();
    // Others read what is settled, and rounding does not write its last bits at once: it is counted apart.
    Stored apart;
    Stored& rounded = t.settled ? apart : *t.stored;
    if (!in_place) round(rounded, t.wide->source(), 1.0, {arithmetic_.mode, 0}, record.rounding);
    record.stored = summarise(executor_, t.stored->source());
    if (in_place) record.rounding = unchanged(record.stored);
  });
}

void Recorder::begin_backward() {
  for (Before& before : before_) before = {};
}

}  // namespace gradkern::chain
