// Recurrence by spans of steps: each thread takes some samples through a span, and what they make is recorded whole.

#include "base/thread_pool.hpp"
#include "chain/recurrence.hpp"

namespace gradkern::chain {
namespace {

constexpr std::int64_t rows_worth_a_thread = 8;  // so many rows share each load of the weights

}  // namespace

bool Recurrence::goes_by_rows() const {
  return !recorder_.with_reference() && !recorder_.keeps_tensors() && !recorder_.executor().device &&
         recorder_.arithmetic().mode.rounding != formats::Rounding::stochastic &&
         sequence_.batch >= rows_worth_a_thread * base::num_threads();
}

template <class Body>
void Recurrence::for_rows(Body body) const {
  const std::int64_t parts = base::num_threads(), batch = sequence_.batch, n = cell_.hidden;
  base::parallel_for(parts, [&](std::int64_t p) {
    const std::int64_t begin = batch * p / parts, rows = batch * (p + 1) / parts - begin;
    body(rows, [=](Stored& tensor) { return tensor.part(begin * n, rows * n); });
  });
}

void Recurrence::forward_span(std::int64_t first, std::int64_t last) {
  sum_inputs(first, last);
  const std::int64_t n = cell_.hidden, units = sequence_.batch * n;
  const FormatId format = executor::wide_format(recorder_.arithmetic().storage);
  std::vector<Stored> wide_at;
  if (!recorder_.is_storage(format)) span_wide_.resize(format, (last - first + 1) * units);
  for (std::int64_t t = first; t <= last; ++t)
    wide_at.push_back(recorder_.is_storage(format) ? h_at_[at(t)].part(0, units)
                                                   : span_wide_.part((t - first) * units, units));
  const executor::ProductArgs before{};
  for_rows([&](std::int64_t rows, auto rows_of) {
    for (std::int64_t t = first; t <= last; ++t) {
      Stored sums = rows_of(sums_at_[at(t)]), z = rows_of(z_at_[at(t)]), h = rows_of(h_at_[at(t)]);
      Stored previous = rows_of(h_at_[at(t - 1)]), wide = rows_of(wide_at[at(t - first)]);
      executor::ProductArgs from_h =
          product(rows, n, n, recorder_.operand(previous, n, 1), recorder_.operand(recurrent_forward_, n, 1));
      from_h.continued = &before;
      from_h.bias = cell_.bias.data ? bias_.data() : nullptr;
      recorder_.sums(from_h, Role::pre_activation, sums);
      recorder_.settle(z, sums);
      recorder_.phi(cell_.activation, z, wide);
      recorder_.settle(h, wide);
    }
  });
  std::vector<Recorder::Complete> tensors;
  for (std::int64_t t = first; t <= last; ++t) {
    tensors.push_back({&z_at_[at(t)], &sums_at_[at(t)], t, Role::pre_activation, true, {}});
    tensors.push_back({&h_at_[at(t)], &wide_at[at(t - first)], t, Role::activation, true, {}});
  }
  recorder_.record(tensors);
}

// Steps last down to first; dh of step last is in dh_.
void Recurrence::backward_span(std::int64_t last, std::int64_t first) {
  const std::int64_t n = cell_.hidden, units = sequence_.batch * n, count = last - first + 1;
  const FormatId storage = recorder_.arithmetic().storage, slope_format = executor::wide_format(storage);
  const bool dz_in_place = recorder_.is_storage(slope_format), dh_in_place = recorder_.is_storage(wide_format());
  span_dh_.resize(storage, count * units);
  if (!dz_in_place) span_wide_.resize(slope_format, count * units);
  if (!dh_in_place) span_sums_.resize(wide_format(), count * units);
  std::vector<Stored> dh_at(1), dz_wide_at, dh_sums_at;  // by steps back from last; dh_at[c] is of step last - c
  dh_at[0] = dh_.part(0, units);
  for (std::int64_t c = 0; c < count; ++c) {
    dh_at.push_back(span_dh_.part(c * units, units));
    dz_wide_at.push_back(dz_in_place ? dz_at_[at(last - c)].part(0, units) : span_wide_.part(c * units, units));
    dh_sums_at.push_back((dh_in_place ? span_dh_ : span_sums_).part(c * units, units));
  }
  for_rows([&](std::int64_t rows, auto rows_of) {
    for (std::int64_t c = 0; c < count; ++c) {
      const std::size_t t = at(last - c);
      Stored dh = rows_of(dh_at[at(c)]), z = rows_of(z_at_[t]), h = rows_of(h_at_[t]), dz = rows_of(dz_at_[t]);
      Stored wide = rows_of(dz_wide_at[at(c)]), sums = rows_of(dh_sums_at[at(c)]), next = rows_of(dh_at[at(c + 1)]);
      recorder_.phi_backward(cell_.activation, dh, z, h, wide, nullptr);
      recorder_.settle(dz, wide);
      executor::ProductArgs to_h =
          product(rows, n, n, recorder_.operand(dz, n, 1), recorder_.operand(recurrent_backward_, n, 1));
      to_h.b_is_finite = recurrent_is_finite_;
      recorder_.sums(to_h, Role::grad_activation, sums);
      recorder_.settle(next, sums);
    }
  });
  std::vector<Recorder::Complete> tensors;
  for (std::int64_t c = 0; c < count; ++c) {
    const std::int64_t t = last - c;
    tensors.push_back({&dz_at_[at(t)], &dz_wide_at[at(c)], t, Role::grad_pre_activation, true, {}});
    tensors.push_back({&dh_at[at(c + 1)], &dh_sums_at[at(c)], t - 1, Role::grad_activation, true, {}});
    if (!recorder_.measures()) continue;
    contributions_.push_back({});
    contributions_.back().step = t;
  }
  recorder_.record(tensors);
  dh_.assign(dh_at.back());
  if (sums_by_span()) add_to_weight_gradients(last, first);
}

// The terms of steps last down to first, while their tensors are in L2.
void Recurrence::add_to_weight_gradients(std::int64_t last, std::int64_t first) {
  const std::int64_t steps = last - first + 1;
  const executor::ProductArgs before{};
  for (Recorder::Product& sum : weight_sums(row(last), steps * sequence_.batch)) {
    if (last < sequence_.steps) sum.args.continued = &before;
    recorder_.sums(sum.args, sum.role, *sum.wide);
  }
  if (recorder_.measures()) measure_contributions(static_cast<std::int64_t>(contributions_.size()) - steps);
}

}  // namespace gradkern::chain
