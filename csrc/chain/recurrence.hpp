// A recurrent net through time: one tied layer stepped T times, forward and back.
//
//   forward    z_t = fl(x_t V^T + h_{t-1} W^T + b),  h_t = fl(phi(z_t)),  t = 1 .. T;  one chain: x_t first, then h_{t-1}
//   backward   dz_t = fl(dh_t phi'(z_t)),  dh_{t-1} = fl(dz_t W [+ g_{t-1}]), g_t being the gradient of the step's own loss
//              dW = fl(sum_t dz_t^T h_{t-1}),  dV = fl(sum_t dz_t^T x_t),  db = fl(sum_t sum_i dz_t[i])
// each sum one chain: t descending, samples ascending within a step, rounded once. With round_every_step it is what
// autograd does: total = fl(total + fl(dz_t^T h_{t-1})), the addition in float64.
//
// The tensors of all steps lie in one block, the last step first: so the chain of dW is one product of T * batch terms.
#pragma once

#include <vector>

#include "chain/recorder.hpp"

namespace gradkern::chain {

struct Cell {
  std::int64_t hidden, inputs;
  Source recurrent_weight, input_weight, bias;  // W (hidden, hidden), V (hidden, inputs), b (hidden,) or data null
  Activation activation;
};

// What one step adds to dL/dW.
struct Contribution {
  std::int64_t step = 0;
  double log2_norm = 0;           // of dz_t^T h_{t-1} as stored, without the loss scale; NaN if that is not finite
  Summary truth;                  // of the true one, with a reference
  std::int64_t exponent = 0;      // of truth
  double log2_running_truth = 0;  // norm of the true sum over this step and all later ones
  std::int64_t absorbed = -1;     // entries that the rounded sum did not notice, with round_every_step
};

struct Sequence {
  Source x;  // (steps, batch, inputs)
  std::int64_t steps, batch;
  Source initial;         // h_0 (batch, hidden), or zeros: data null
  std::int64_t truncate;  // gradients go back so many steps, from the last; 0: all
  bool round_every_step;
};

class Recurrence {
 public:
  Recurrence(const Executor& executor, Arithmetic arithmetic, Cell cell, Sequence sequence, double loss_scale,
             bool with_reference, bool keep_tensors, bool measured);

  void forward(const Poll& poll);
  // Gradients of the loss with respect to the stored outputs of the last steps, ending with step T: (count, batch,
  // hidden), before the loss scale; reference_gradients[c] * 2^exponents[c] likewise.
  struct Gradients {
    Values values, reference;
    std::vector<std::int64_t> exponents;
  };
  void backward(Gradients gradients, const Poll& poll);

  std::int64_t planned_bytes() const;  // of both passes, after the second
  Values output(std::int64_t step) const;
  const Reference& reference_output(std::int64_t step) const { return h_truth_[static_cast<std::size_t>(step)]; }
  const std::vector<Record>& records() const { return recorder_.records(); }
  std::vector<Record> take_records() { return recorder_.take_records(); }
  const std::vector<Contribution>& contributions() const { return contributions_; }

 private:
  // Samples need one another in no step: where nothing but statistics is asked for, each thread takes some of them through
  // a span of steps, and the tensors of the span are recorded when they are whole. The bits are those of the steps.
  static constexpr std::int64_t span = 16;  // steps whose tensors stay in L2
  bool goes_by_rows() const;
  bool can_go_back_by_spans() const {
    return goes_by_rows() && losses_ == 1 && sequence_.truncate == 0 && !sequence_.round_every_step;
  }
  // Whether weight gradients are summed span by span: a unit's chain may not be cut between any two terms.
  bool sums_by_span() const { return back_by_spans_ && !recorder_.arithmetic().unit; }
  template <class Body>
  void for_rows(Body body) const;
  void forward_span(std::int64_t first, std::int64_t last);
  void backward_span(std::int64_t last, std::int64_t first);
  void sum_inputs(std::int64_t first, std::int64_t last);
  void add_to_weight_gradients(std::int64_t last, std::int64_t first);
  void forward_step(std::int64_t t);
  void backward_step(std::int64_t t);
  void give_gradient(std::int64_t t);
  void carry_gradient(std::int64_t t, const Reference& dz_truth);
  void contribute(std::int64_t t, const Reference& dz_truth);
  std::vector<Recorder::Product> weight_sums(std::int64_t row, std::int64_t terms);
  std::int64_t absorb(std::int64_t t);
  void weight_gradients(std::int64_t first);
  void measure_contributions(std::int64_t begin);

  bool has_loss(std::int64_t t) const { return t > sequence_.steps - losses_ && t >= 1; }
  bool is_cut(std::int64_t t) const;  // whether no gradient goes from step t to the one before
  FormatId wide_format() const { return executor::wide_format(recorder_.arithmetic().accumulate); }
  std::int64_t row(std::int64_t t) const { return (sequence_.steps - t) * sequence_.batch; }
  Source gradient_source(std::int64_t t) const;
  Reference gradient_truth(std::int64_t t) const;
  // A weight as the products of every step read it, turned or not: widened and turned once.
  Stored prepared(const Stored& weight, std::int64_t rows, std::int64_t columns, bool turned) const;

  Recorder recorder_;
  Cell cell_;
  Sequence sequence_;
  std::vector<float> ones_;

  bool recurrent_is_finite_ = false;  // known of it
  Stored recurrent_, input_weight_, bias_, recurrent_forward_, recurrent_backward_, input_forward_;
  Stored x_, h_, z_, sums_, dz_;                              // blocks of all steps; dz_ may lie where z_ does
  std::vector<Stored> x_at_, h_at_, z_at_, sums_at_, dz_at_;  // by step
  std::vector<Reference> x_truth_, h_truth_, z_truth_;        // by step
  Reference recurrent_truth_, input_weight_truth_, bias_truth_;
  Stored dh_, next_dh_, own_;
  Stored span_dh_, span_wide_, span_sums_;  // blocks of a span of steps
  Reference dh_truth_, dw_truth_, dv_truth_, db_truth_;
  Gradients gradients_;
  std::int64_t losses_ = 0;
  bool forward_is_done_ = false;
  bool back_by_spans_ = false;  // decided once, whatever becomes of the number of threads
  Stored dw_, dv_, db_;
  Stored weight_sums_[3];       // of dW, dV and db before rounding, summed by span
  std::vector<Values> totals_;  // of dW, dV and db before rounding, with round_every_step
  std::vector<Contribution> contributions_;
};

}  // namespace gradkern::chain
