#include "chain/recurrence.hpp"

#include <algorithm>
#include <utility>

#include "base/expects.hpp"
#include "base/thread_pool.hpp"
#include "chain/outer.hpp"
#include "chain/reference.hpp"

namespace gradkern::chain {
namespace {

// The parts of a block that belong to steps first .. T, the last step's first.
std::vector<Stored> by_step(Stored& block, std::int64_t steps, std::int64_t size, std::int64_t first) {
  std::vector<Stored> parts(at(steps + 1));
  for (std::int64_t t = first; t <= steps; ++t) parts[at(t)] = block.part((steps - t) * size, size);
  return parts;
}

Source slice(const Source& s, std::int64_t begin, std::int64_t size) {
  return {s.format, static_cast<const char*>(s.data) + begin * container_bytes(s.format), size};
}

}  // namespace

Recurrence::Recurrence(const Executor& executor, Arithmetic arithmetic, Cell cell, Sequence sequence, double loss_scale,
                       bool with_reference, bool keep_tensors, bool measured)
    : recorder_(executor, arithmetic, loss_scale, with_reference, keep_tensors, measured),
      cell_(cell),
      sequence_(sequence),
      ones_(at(sequence.batch * sequence.steps), 1.0f) {
  const std::int64_t h = cell.hidden, i = cell.inputs, batch = sequence.batch;
  base::expects(h > 0 && i > 0 && batch > 0 && sequence.steps > 0, "probe: an RNN needs units, inputs, rows and steps");
  base::expects(cell.recurrent_weight.size == h * h, "probe: recurrent_weight has the wrong size");
  base::expects(cell.input_weight.size == h * i, "probe: input_weight has the wrong size");
  base::expects(!cell.bias.data || cell.bias.size == h, "probe: bias has the wrong size");
  base::expects(sequence.x.size == sequence.steps * batch * i, "probe: x does not fit the input weight");
  base::expects(!sequence.initial.data || sequence.initial.size == batch * h, "probe: h_0 does not fit the batch");
}

Stored Recurrence::prepared(const Stored& weight, std::int64_t rows, std::int64_t columns, bool turned) const {
  const Arithmetic& a = recorder_.arithmetic();
  const bool widens = a.accumulate == FormatId::float32 || a.accumulate == FormatId::float64;
  const bool as_stored = !widens || a.operands == FormatId::float64 || a.operands == FormatId::tfloat32;
  const FormatId format = as_stored ? weight.format : a.accumulate;
  Stored wide;
  wide.resize(format, weight.size);
  recorder_.executor().convert(recorder_.executor(),
                               {weight.size, weight.format, format, weight.data(), wide.writable(), 1, {}, 0, nullptr});
  if (!turned) return wide;
  Stored result;
  result.resize(format, weight.size);
  formats::visit(format, [&](auto f) {
    using C = typename decltype(f)::container;
    const auto* from = static_cast<const C*>(wide.data());
    auto* to = static_cast<C*>(result.writable());
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c) to[c * rows + r] = from[r * columns + c];
  });
  return result;
}

void Recurrence::forward(const Poll& poll) {
  const Executor& e = recorder_.host();
  const std::int64_t steps = sequence_.steps, batch = sequence_.batch, n = cell_.hidden, inputs = cell_.inputs;
  const FormatId storage = recorder_.arithmetic().storage;
  const bool with_reference = recorder_.with_reference();
  recorder_.reserve(6 * steps + 12);
  x_.resize(storage, steps * batch * inputs);
  h_.resize(storage, (steps + 1) * batch * n);
  z_.resize(storage, steps * batch * n);
  x_at_ = by_step(x_, steps, batch * inputs, 1);
  h_at_ = by_step(h_, steps, batch * n, 0);
  z_at_ = by_step(z_, steps, batch * n, 1);
  x_truth_.resize(at(steps + 1));
  h_truth_.resize(at(steps + 1));
  z_truth_.resize(at(steps + 1));

  const auto give = [&](Stored& stored, const Source& source, std::int64_t layer, Role role, Reference& truth) {
    if (with_reference) {
      truth.values = decode_all(e, source);
      renormalise(truth);
    }
    recorder_.given(stored, source, 1.0, layer, role, recorder_.known(truth));
  };
  give(recurrent_, cell_.recurrent_weight, 0, Role::weight, recurrent_truth_);
  give(input_weight_, cell_.input_weight, 0, Role::input_weight, input_weight_truth_);
  if (cell_.bias.data) give(bias_, cell_.bias, 0, Role::bias, bias_truth_);
  const Values zeros(sequence_.initial.data ? 0 : at(batch * n), 0.0);
  const Source none{FormatId::float64, zeros.data(), batch * n};
  give(h_at_[0], sequence_.initial.data ? sequence_.initial : none, 0, Role::activation, h_truth_[0]);
  for (std::int64_t t = 1; t <= steps; ++t)
    give(x_at_[at(t)], slice(sequence_.x, (t - 1) * batch * inputs, batch * inputs), t, Role::input, x_truth_[at(t)]);
  recorder_.measure();
  const Summary& recurrent = recorder_.records().front().stored;
  recurrent_is_finite_ = recorder_.measures() && recurrent.moments.finite == recurrent.size;

  recurrent_forward_ = prepared(recurrent_, n, n, true);
  recurrent_backward_ = prepared(recurrent_, n, n, false);
  input_forward_ = prepared(input_weight_, n, inputs, true);
  Stored& sums = recorder_.is_storage(wide_format()) ? z_ : sums_;
  sums.resize(wide_format(), steps * batch * n);
  sums_at_ = by_step(sums, steps, batch * n, 1);
  const bool by_rows = goes_by_rows();
  if (!by_rows) sum_inputs(1, steps);
  const std::int64_t stride = by_rows ? span : 1;
  for (std::int64_t t = 1; t <= steps; t += stride) {
    poll(t - 1, 2 * steps);
    if (by_rows) {
      forward_span(t, std::min(steps, t + stride - 1));
    } else {
      forward_step(t);
    }
  }
  forward_is_done_ = true;
}

// Of steps first .. last, x_t V^T: where the chains of z_t begin.
void Recurrence::sum_inputs(std::int64_t first, std::int64_t last) {
  const std::int64_t n = cell_.hidden, inputs = cell_.inputs, rows = (last - first + 1) * sequence_.batch;
  Stored& block = recorder_.is_storage(wide_format()) ? z_ : sums_;
  const Stored x = x_.part(row(last) * inputs, rows * inputs);
  Stored sums = block.part(row(last) * n, rows * n);
  recorder_.sums(product(rows, n, inputs, recorder_.operand(x, inputs, 1), recorder_.operand(input_forward_, n, 1)),
                 Role::pre_activation, sums);
}

void Recurrence::forward_step(std::int64_t t) {
  const Executor& e = recorder_.host();
  const std::int64_t batch = sequence_.batch, n = cell_.hidden, inputs = cell_.inputs;
  Reference& z_truth = z_truth_[at(t)];
  Reference& h_truth = h_truth_[at(t)];
  if (recorder_.with_reference()) {
    const Reference& x = x_truth_[at(t)];
    const Reference& h = h_truth_[at(t - 1)];
    z_truth = reference_product(e, rows_of(x, inputs), columns_of(input_weight_truth_, inputs), batch, n, inputs,
                                x.exponent + input_weight_truth_.exponent);
    add(z_truth, reference_product(e, rows_of(h, n), columns_of(recurrent_truth_, n), batch, n, n,
                                   h.exponent + recurrent_truth_.exponent));
    if (cell_.bias.data) {
      Reference bias{{}, bias_truth_.exponent};
      for (std::int64_t i = 0; i < batch; ++i)
        bias.values.insert(bias.values.end(), bias_truth_.values.begin(), bias_truth_.values.end());
      add(z_truth, bias);
    }
    h_truth = reference_activation(e, z_truth, cell_.activation.id, cell_.activation.alpha);
  }
  executor::ProductArgs from_x =
      product(batch, n, inputs, recorder_.operand(x_at_[at(t)], inputs, 1), recorder_.operand(input_forward_, n, 1));
  executor::ProductArgs from_h =
      product(batch, n, n, recorder_.operand(h_at_[at(t - 1)], n, 1), recorder_.operand(recurrent_forward_, n, 1));
  from_x.operands = recorder_.arithmetic().operands;
  from_h.continued = &from_x;
  from_h.bias = cell_.bias.data ? bias_.data() : nullptr;
  recorder_.products({{&z_at_[at(t)], from_h, t, Role::pre_activation, &z_truth, &sums_at_[at(t)]}}, 0);
  recorder_.activate(cell_.activation, z_at_[at(t)], h_at_[at(t)], t, recorder_.known(h_truth));
  recorder_.measure();
}

bool Recurrence::is_cut(std::int64_t t) const {
  return sequence_.truncate > 0 && (sequence_.steps - t + 1) % sequence_.truncate == 0;
}

Source Recurrence::gradient_source(std::int64_t t) const {
  const std::int64_t size = sequence_.batch * cell_.hidden;
  return {FormatId::float64, gradients_.values.data() + (t - 1 - (sequence_.steps - losses_)) * size, size};
}

Reference Recurrence::gradient_truth(std::int64_t t) const {
  if (!recorder_.with_reference()) return {};
  const std::int64_t size = sequence_.batch * cell_.hidden, c = t - 1 - (sequence_.steps - losses_);
  const auto begin = gradients_.reference.begin() + c * size;
  Reference truth{{begin, begin + size}, gradients_.exponents[at(c)]};
  renormalise(truth);
  return truth;
}

void Recurrence::backward(Gradients gradients, const Poll& poll) {
  const std::int64_t steps = sequence_.steps, batch = sequence_.batch, n = cell_.hidden;
  base::expects(forward_is_done_, "probe: backward comes once after forward");
  losses_ = static_cast<std::int64_t>(gradients.values.size()) / (batch * n);
  base::expects(
      losses_ >= 1 && losses_ <= steps && losses_ * batch * n == static_cast<std::int64_t>(gradients.values.size()),
      "probe: grad_output does not fit the outputs");
  base::expects(!recorder_.with_reference() || (gradients.reference.size() == gradients.values.size() &&
                                                gradients.exponents.size() == at(losses_)),
                "probe: the reference gradient does not fit");
  gradients_ = std::move(gradients);
  recorder_.begin_backward();
  back_by_spans_ = can_go_back_by_spans();
  if (back_by_spans_) {
    dz_ = z_.part(0, steps * batch * n);  // in its place: an entry of z is read once more, for that of dz
  } else {
    dz_.resize(recorder_.arithmetic().storage, steps * batch * n);
  }
  dz_at_ = by_step(dz_, steps, batch * n, 1);
  forward_is_done_ = false;
  give_gradient(steps);
  recorder_.measure();
  std::int64_t first = steps + 1;
  if (back_by_spans_) {
    while (first > 1) {
      const std::int64_t last = first - 1;
      first = std::max<std::int64_t>(1, first - span);
      poll(2 * steps - last, 2 * steps);
      backward_span(last, first);
    }
  } else {
    do {
      --first;
      poll(2 * steps - first, 2 * steps);
      backward_step(first);
    } while (first > 1 && (!is_cut(first) || has_loss(first - 1)));
  }
  if (!sums_by_span()) measure_contributions(0);
  weight_gradients(first);
  poll(2 * steps, 2 * steps);
}

// dh_t where nothing comes from a later step.
void Recurrence::give_gradient(std::int64_t t) {
  dh_truth_ = gradient_truth(t);
  recorder_.given(dh_, gradient_source(t), recorder_.loss_scale(), t, Role::grad_activation,
                  recorder_.known(dh_truth_));
}

void Recurrence::backward_step(std::int64_t t) {
  Reference dz_truth;
  if (recorder_.with_reference()) {
    dz_truth = reference_activation_backward(recorder_.host(), dh_truth_, z_truth_[at(t)], cell_.activation.id,
                                             cell_.activation.alpha);
  }
  recorder_.activate_backward(cell_.activation, dh_, z_at_[at(t)], h_at_[at(t)], dz_at_[at(t)], t,
                              recorder_.known(dz_truth));
  if (!is_cut(t)) {
    carry_gradient(t, dz_truth);
  } else if (has_loss(t - 1)) {
    recorder_.measure();
    give_gradient(t - 1);
  }
  recorder_.measure();
  contribute(t, dz_truth);
}

// dh_{t-1} from dz_t, and from the loss of step t - 1 where it has one.
void Recurrence::carry_gradient(std::int64_t t, const Reference& dz_truth) {
  const std::int64_t batch = sequence_.batch, n = cell_.hidden;
  executor::ProductArgs args =
      product(batch, n, n, recorder_.operand(dz_at_[at(t)], n, 1), recorder_.operand(recurrent_backward_, n, 1));
  args.b_is_finite = recurrent_is_finite_;
  Reference truth, own_truth;
  const bool own = has_loss(t - 1);
  if (own) own_truth = gradient_truth(t - 1);
  if (recorder_.with_reference()) {
    truth = reference_product(recorder_.host(), rows_of(dz_truth, n), rows_of(recurrent_truth_, n), batch, n, n,
                              dz_truth.exponent + recurrent_truth_.exponent);
    if (own) add(truth, own_truth);
  }
  if (own) {
    recorder_.given(own_, gradient_source(t - 1), recorder_.loss_scale(), t - 1, Role::grad_output,
                    recorder_.known(own_truth));
    args.bias = own_.data();
    args.bias_row = n;
  }
  recorder_.products({{&next_dh_, args, t - 1, Role::grad_activation, &truth}}, recorder_.log2_loss_scale());
  recorder_.measure();
  std::swap(dh_, next_dh_);
  dh_truth_ = std::move(truth);
}

void Recurrence::contribute(std::int64_t t, const Reference& dz_truth) {
  const Executor& e = recorder_.host();
  const std::int64_t batch = sequence_.batch, n = cell_.hidden, inputs = cell_.inputs;
  if (!recorder_.measures()) return;
  Contribution c;
  c.step = t;
  if (recorder_.with_reference()) {
    const auto share = [&](const Reference& factor, std::int64_t columns) {
      return reference_product(e, columns_of(dz_truth, n), rows_of(factor, columns), n, columns, batch,
                               dz_truth.exponent + factor.exponent);
    };
    const Reference partial = share(h_truth_[at(t - 1)], n);
    c.truth = summarise(e, {FormatId::float64, partial.values.data(), n * n});
    c.exponent = partial.exponent;
    add(dw_truth_, partial);
    c.log2_running_truth = log2_norm(e, dw_truth_);
    add(dv_truth_, share(x_truth_[at(t)], inputs));
    const Reference ones{Values(at(batch), 1.0), 0};
    add(db_truth_, reference_product(e, rows_of(ones, batch), rows_of(dz_truth, n), 1, n, batch, dz_truth.exponent));
  }
  if (sequence_.round_every_step) c.absorbed = absorb(t);
  contributions_.push_back(std::move(c));
}

// Sums over the terms that begin with a row of the blocks: dW, dV and db.
std::vector<Recorder::Product> Recurrence::weight_sums(std::int64_t row, std::int64_t terms) {
  const std::int64_t batch = sequence_.batch, n = cell_.hidden, inputs = cell_.inputs;
  const Stored dz = dz_.part(row * n, terms * n), h = h_.part((row + batch) * n, terms * n),
               x = x_.part(row * inputs, terms * inputs);
  const executor::Operand turned = recorder_.operand(dz, 1, n);
  std::vector<Recorder::Product> list{
      {&dw_, product(n, n, terms, turned, recorder_.operand(h, n, 1)), 0, Role::grad_weight, &dw_truth_},
      {&dv_, product(n, inputs, terms, turned, recorder_.operand(x, inputs, 1)), 0, Role::grad_input_weight,
       &dv_truth_}};
  if (cell_.bias.data) {
    const executor::Operand sum{FormatId::float32, ones_.data(), terms, 1};
    list.push_back({&db_, product(1, n, terms, sum, recorder_.operand(dz, n, 1)), 0, Role::grad_bias, &db_truth_});
  }
  if (sums_by_span())
    for (std::size_t i = 0; i < list.size(); ++i)
      list[i].wide = recorder_.is_storage(wide_format()) ? list[i].result : &weight_sums_[i];
  return list;
}

// total = fl(total + fl(share)) for each; says how many entries of dW have a share that left the total as it was.
std::int64_t Recurrence::absorb(std::int64_t t) {
  const Executor& e = recorder_.host();
  std::int64_t absorbed = 0;
  std::vector<Recorder::Product> list = weight_sums(row(t), sequence_.batch);
  totals_.resize(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    Stored wide, share;
    recorder_.sums(list[i].args, list[i].role, wide);
    recorder_.round(share, wide.source());
    Values& total = totals_[i];
    const Values added = decode_all(e, share.source());
    const bool first = total.empty();
    const Values before = first ? Values(added.size(), 0.0) : decode_all(e, list[i].result->source());
    total.resize(added.size());
    for (std::size_t k = 0; k < added.size(); ++k) total[k] = before[k] + added[k];
    recorder_.round(*list[i].result, {FormatId::float64, total.data(), static_cast<std::int64_t>(total.size())});
    if (i > 0) continue;
    const Values after = decode_all(e, list[i].result->source());
    for (std::size_t k = 0; k < added.size(); ++k) absorbed += added[k] != 0 && after[k] == before[k];
  }
  return absorbed;
}

// The norms of what is stored, of all from this one on, the steps shared out among the threads.
void Recurrence::measure_contributions(std::int64_t begin) {
  base::parallel_for(static_cast<std::int64_t>(contributions_.size()) - begin, [&](std::int64_t i) {
    Contribution& c = contributions_[at(begin + i)];
    c.log2_norm = log2_norm_of_outer_sum(recorder_.host(), dz_at_[at(c.step)].source(), h_at_[at(c.step - 1)].source(),
                                         sequence_.batch) -
                  recorder_.log2_loss_scale();
  });
}

void Recurrence::weight_gradients(std::int64_t first) {
  std::vector<Recorder::Product> list = weight_sums(0, (sequence_.steps - first + 1) * sequence_.batch);
  if (sequence_.round_every_step) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      const Source total{FormatId::float64, totals_[i].data(), static_cast<std::int64_t>(totals_[i].size())};
      recorder_.given(*list[i].result, total, 1.0, 0, list[i].role, recorder_.known(*list[i].truth));
    }
  } else if (sums_by_span()) {
    std::vector<Recorder::Complete> sums;
    for (const Recorder::Product& p : list) {
      p.result->resize(recorder_.arithmetic().storage, p.wide->size);
      sums.push_back({p.result, p.wide, 0, p.role, false, {}});
    }
    recorder_.record(sums);
  } else {
    recorder_.products(std::move(list), recorder_.log2_loss_scale());
  }
  recorder_.measure();
}

Values Recurrence::output(std::int64_t step) const { return decode_all(recorder_.host(), h_at_[at(step)].source()); }

}  // namespace gradkern::chain
