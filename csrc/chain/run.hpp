// A probe: forward and backward through the layers in a chosen arithmetic, the reference chain beside it, and one
// record per layer and role of what every rounding did. See the arithmetic contract for the rounding points.
//
//   forward    z_l = fl(h_{l-1} W_l^T + b_l),  h_l = fl(phi(z_l)),  h_0 = fl(x)
//   backward   dz_l = fl(dh_l phi'(z_l)),  dW_l = fl(dz_l^T h_{l-1}),  db_l = fl(sum_i dz_l[i]),
//              dh_{l-1} = fl(dz_l W_l)
// with dh_L = fl(loss gradient times loss scale), given by the caller.
#pragma once

#include <functional>
#include <memory>

#include "chain/attribution.hpp"
#include "chain/summary.hpp"
#include "chain/tensor.hpp"

namespace gradkern::chain {

struct Arithmetic {
  FormatId storage, operands, accumulate;
  formats::Mode mode;
  bool stored_output_derivative;
};

struct Layer {
  std::int64_t n_in, n_out;
  Source weight, bias;  // (n_out, n_in), (n_out,) or no bias: data null
  ops::ActivationId activation;
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
  grad_bias
};
inline constexpr const char* role_names[] = {
    "weight",      "bias",     "pre_activation", "activation", "grad_activation", "grad_pre_activation",
    "grad_weight", "grad_bias"};
inline constexpr int role_count = 8;

struct Record {
  std::int64_t layer;  // 0: the input x and its gradient
  Role role;
  ops::RoundingCounts rounding;
  Attribution attribution;  // all zero without a reference
  Summary stored, reference;
  std::int64_t reference_exponent = 0;
  double relative_error = 0;
  Stored tensor;  // kept only on request
  Reference truth;
};

class Run {
 public:
  // Called between layers with (steps done, steps in all); an exception from it ends the run.
  using Poll = std::function<void(std::int64_t, std::int64_t)>;

  // Without measuring, records hold nothing but layer and role: what measuring costs is the difference.
  Run(const Executor& executor, Arithmetic arithmetic, std::vector<Layer> layers, Source input, std::int64_t batch,
      double loss_scale, bool with_reference, bool keep_tensors, bool measured);

  // What the run holds when it holds most, from the shapes: tensors, working space and records.
  std::int64_t planned_bytes() const;

  void forward(const Poll& poll);
  // gradient: of the loss with respect to the stored output, before the loss scale; reference_gradient * 2^exponent
  // likewise.
  void backward(std::vector<double> gradient, Reference reference_gradient, const Poll& poll);

  std::vector<double> output() const;
  const Reference& reference_output() const { return reference_activations_.back(); }
  const std::vector<Record>& records() const { return records_; }
  std::vector<Record> take_records() { return std::move(records_); }

 private:
  using AttributionOf = std::function<Attribution(const Source& wide, const Stored&, const Rounded&, const Reference&)>;

  void store_given(Stored& stored, const Source& source, double scale, std::int64_t layer, Role role,
                   const Reference* reference);
  // Whether a value of this format is rounded to storage by doing nothing: NaN payloads apart.
  bool is_storage(FormatId format) const;
  // Where a result before rounding goes: straight to storage where it is of that format.
  Stored& wide_for(Stored& result, Stored& scratch, FormatId format, std::int64_t size);
  void round(Stored& stored, const Source& wide, double scale, const Rounded& how, ops::RoundingCounts& counts);
  // stored = fl(wide * scale). wide may be stored itself, or what it borrows.
  void store(Stored& stored, const Source& wide, double scale, std::int64_t layer, Role role,
             const Reference* reference, double log2_scale, const AttributionOf& attribution_of);
  struct Before {
    Stored stored;
    Reference reference;
  };
  static std::int64_t stalled_since(Before& before, const Stored& stored, const Reference& reference,
                                    const Attribution& attribution);
  // A NaN that was given may have a payload, which storing drops.
  void drop_payloads(Stored& stored, Record& record);
  // Statistics of everything stored since the last call, in one region of the threads.
  void measure_pending();
  void forward_layer(std::int64_t l);
  void backward_layer(std::int64_t l);
  Reference activation_gradient(std::int64_t l);
  struct Product {
    Stored* result;
    executor::ProductArgs args;  // m, n, k, operands and bias
    std::int64_t layer;
    Role role;
    const Reference* reference;
    Stored* wide = nullptr;
  };
  void products(std::vector<Product> list, double log2_scale);
  executor::Operand operand(const Stored& s, std::int64_t row_stride, std::int64_t column_stride) const;
  bool has_bias(std::int64_t l) const { return layers_[static_cast<std::size_t>(l)].bias.data != nullptr; }

  const Executor& executor_;
  Arithmetic arithmetic_;
  std::vector<Layer> layers_;
  Source input_;
  std::int64_t batch_;
  double loss_scale_, log2_loss_scale_;
  bool with_reference_, keep_tensors_, measured_;
  std::vector<float> ones_;  // batch of them
  std::uint64_t stream_ = 0;

  std::vector<Stored> weights_, biases_, pre_activations_, activations_;
  std::vector<Reference> reference_pre_activations_, reference_activations_;
  std::vector<std::vector<double>> reference_weights_;
  Stored gradient_;                      // dh of the layer in work
  Stored dz_, dw_, db_, next_gradient_;  // likewise
  std::vector<Stored> wide_{1};          // of the operations in work
  Stored slope_;
  Reference reference_gradient_;
  struct Pending {
    std::size_t record;
    Stored* stored;
    const Reference* reference;  // or null
    bool in_place;               // rounding changed nothing
  };
  std::vector<Pending> pending_;
  Before before_[role_count];  // the last tensor of each role, to see stalls
  std::vector<Record> records_;
};

}  // namespace gradkern::chain
