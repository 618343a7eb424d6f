// What a forward and a backward pass are made of: tensors rounded to storage, products and activations, each with one
// record of what its rounding did. A chain says which tensors follow which; the rounding points are the contract's.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "chain/attribution.hpp"
#include "chain/summary.hpp"
#include "chain/tensor.hpp"
#include "executor/registry.hpp"

namespace gradkern::chain {

struct Arithmetic {
  FormatId storage, operands, accumulate;
  formats::Mode mode;
  bool stored_output_derivative;
  int unit = 0;  // as executor::ProductArgs has it

  // Whether a value of this format is rounded to storage by doing nothing: NaN payloads apart.
  bool is_storage(FormatId format) const { return format == storage && mode.subnormals == formats::Subnormals::keep; }
};

struct Activation {
  ops::ActivationId id;
  double alpha;
};

enum class Role : int {
  weight,
  bias,
  pre_activation,
  activation,
  grad_activation,
  grad_pre_activation,
  grad_weight,
  grad_bias,
  input,
  input_weight,
  grad_input_weight,
  grad_output
};
inline constexpr const char* role_names[] = {
    "weight",      "bias",      "pre_activation", "activation",   "grad_activation",   "grad_pre_activation",
    "grad_weight", "grad_bias", "input",          "input_weight", "grad_input_weight", "grad_output"};
inline constexpr int role_count = 12;

struct Record {
  std::int64_t layer = 0;
  Role role = Role::weight;
  ops::RoundingCounts rounding = {};
  Attribution attribution = {};  // all zero without a reference
  Summary stored = {}, reference = {};
  std::int64_t reference_exponent = 0;
  double relative_error = 0;
  Stored tensor = {};  // kept only on request
  Reference truth = {};
};

// a (m, k) times b (k, n): the shapes, the rest is the recorder's.
inline executor::ProductArgs product(std::int64_t m, std::int64_t n, std::int64_t k, executor::Operand a,
                                     executor::Operand b) {
  executor::ProductArgs p{};
  p.m = m;
  p.n = n;
  p.k = k;
  p.a = a;
  p.b = b;
  return p;
}

// The arguments of an operation in an arithmetic, whoever runs it; wide is where the values before rounding go.
executor::ProductArgs completed(executor::ProductArgs args, const Arithmetic&, Role, void* wide);
executor::ActivationArgs activation_args(const Arithmetic&, Activation, std::int64_t size, const void* z, void* wide);

// What rounding did to a tensor that was in storage already.
ops::RoundingCounts unchanged(const Summary& s);

// Called between layers with (steps done, steps in all); an exception from it ends the run.
using Poll = std::function<void(std::int64_t, std::int64_t)>;

class Recorder {
 public:
  // Without measuring, records hold nothing but layer and role: what measuring costs is the difference.
  Recorder(const Executor& executor, Arithmetic arithmetic, double loss_scale, bool with_reference, bool keep_tensors,
           bool measured);

  const Executor& executor() const { return executor_; }
  // Where the reference is computed: a device's float64 would say the same, later.
  const Executor& host() const { return executor_.device ? executor::host() : executor_; }
  const Arithmetic& arithmetic() const { return arithmetic_; }
  bool with_reference() const { return with_reference_; }
  bool keeps_tensors() const { return keep_tensors_; }
  bool measures() const { return measured_; }
  double loss_scale() const { return loss_scale_; }
  double log2_loss_scale() const { return log2_loss_scale_; }
  bool is_storage(FormatId format) const { return arithmetic_.is_storage(format); }
  // The truth where it is known, as the functions below take it.
  const Reference* known(const Reference& truth) const { return with_reference_ ? &truth : nullptr; }

  executor::Operand operand(const Stored& s, std::int64_t row_stride, std::int64_t column_stride) const {
    return {s.format, s.data(), row_stride, column_stride};
  }

  // stored = fl(source * scale). It borrows what is in storage already.
  void given(Stored& stored, const Source& source, double scale, std::int64_t layer, Role role, const Reference*);

  // stored = fl(source), whose truth is the source itself.
  void argument(Stored& stored, const Source& source, std::int64_t layer, Role role);

  struct Product {
    Stored* result;
    executor::ProductArgs args;  // m, n, k, operands and bias
    std::int64_t layer;
    Role role;
    const Reference* truth;
    Stored* wide = nullptr;  // where its sum lies before rounding; given with a product that continues
  };
  // result = fl(a b + bias), of products that do not need one another. A gradient carries the loss scale.
  void products(std::vector<Product> list, double log2_scale);
  // Sums that nothing rounds yet: what products that continue go on with.
  void sums(executor::ProductArgs args, Role role, Stored& wide) const;

  // h = fl(phi(z))
  void activate(Activation, const Stored& z, Stored& h, std::int64_t layer, const Reference* truth);
  // dz = fl(dh phi'(z))
  void activate_backward(Activation, const Stored& dh, const Stored& z, const Stored& h, Stored& dz, std::int64_t layer,
                         const Reference* truth);

  // The parts of the operations above, for whoever makes tensors piece by piece on several threads and then records them
  // whole: values before rounding, and rounding by an arithmetic without chance.
  void phi(Activation, const Stored& z, Stored& wide) const;
  void phi_backward(Activation, const Stored& dh, const Stored& z, const Stored& h, Stored& wide, Stored* slope) const;
  void settle(Stored& stored, const Stored& wide) const;
  struct Complete {
    Stored* stored;
    Stored* wide;  // its values before rounding; stored itself where that changes nothing
    std::int64_t layer;
    Role role;
    bool settled;                // stored has its bits already; to make others it may be read
    std::function<void()> make;  // of wide, where that is still to be done, from tensors that are settled
  };
  // One record each; the threads share the tensors out.
  void record(const std::vector<Complete>& tensors);

  // stored = fl(wide), without a record.
  void round(Stored& stored, const Source& wide);

  // Statistics of everything stored since the last call, in one region of the threads, which fetches `next` meanwhile.
  void measure(const Source& next = {});
  void begin_backward();

  void reserve(std::int64_t records) { records_.reserve(static_cast<std::size_t>(records)); }
  const std::vector<Record>& records() const { return records_; }
  std::vector<Record> take_records() { return std::move(records_); }

 private:
  using JudgeOf = std::function<Judge(const Source& wide, const Stored&, const Rounded&, const Reference&)>;

  // Whether storing an argument changes nothing, nor how it is measured.
  bool is_exact(const Stored& stored, const Source& source) const;
  // Where a result before rounding goes: straight to storage where it is of that format.
  Stored& wide_for(Stored& result, Stored& scratch, FormatId format, std::int64_t size);
  void round(Stored& stored, const Source& wide, double scale, const Rounded& how, ops::RoundingCounts& counts);
  // stored = fl(wide * scale). wide may be stored itself, or what it borrows.
  void store(Stored& stored, const Source& wide, double scale, std::int64_t layer, Role role, const Reference* truth,
             double log2_scale, const JudgeOf& judge_of);
  struct Before {
    Stored stored;
    Reference reference;
  };
  static std::int64_t stalled_since(Before& before, const Stored& stored, const Reference& reference,
                                    const Attribution& attribution);
  // A NaN that was given may have a payload, which storing drops.
  void drop_payloads(Stored& stored, Record& record);
  executor::ActivationArgs activation_forward_args(Activation, const Stored& z, Stored& wide) const;
  executor::ActivationArgs activation_backward_args(Activation, const Stored& dh, const Stored& z, const Stored& h,
                                                    Stored& wide, Stored* slope) const;

  const Executor& executor_;
  Arithmetic arithmetic_;
  double loss_scale_, log2_loss_scale_;
  bool with_reference_, keep_tensors_, measured_;
  std::uint64_t stream_ = 0;
  std::vector<Stored> wide_{1};  // of the operations in work
  Stored slope_;
  struct Pending {
    std::size_t record;
    Stored* stored;
    const Reference* truth;  // or null
    bool in_place;           // rounding changed nothing
    bool exact = false;      // what is stored is the truth
  };
  std::vector<Pending> pending_;
  std::vector<std::unique_ptr<Reference>> arguments_;  // truths of arguments that are pending
  Before before_[role_count];                          // the last tensor of each role, to see stalls
  std::vector<Record> records_;
};

}  // namespace gradkern::chain
