// The probe that stays on a device. The host rounds the arguments, part by part, into page-locked memory, and enqueues each
// part's copy and then the layers that it is for, while the device works on those before. It waits for the output, if it
// is asked for it, at the end for the partial results of every tensor, which it merges in index order, so that the records
// are those of chain::Run, and in between only where more arguments are on their way than DevicePlan lets it hold. A graph
// of the launches would be launched once, and cost more than they do.
#pragma once

#include <initializer_list>
#include <vector>

#include "chain/device_plan.hpp"
#include "chain/probe.hpp"
#include "executor/pinned.hpp"

namespace gradkern::chain {

class DeviceRun final : public Probe {
 public:
  DeviceRun(const Executor& device, Arithmetic arithmetic, std::vector<Layer> layers, Source input, std::int64_t batch,
            double loss_scale, bool measured, std::int64_t part_bytes = DevicePlan::usual_part_bytes);
  DeviceRun(const DeviceRun&) = delete;
  DeviceRun& operator=(const DeviceRun&) = delete;
  ~DeviceRun() override;

  std::int64_t planned_bytes() const override { return plan_.planned_bytes(); }
  void forward(const Poll& poll) override;
  void backward(Values gradient, Reference reference_gradient, const Poll& poll) override;

  Values output() const override;
  const Reference& reference_output() const override;
  const std::vector<Record>& records() const { return records_; }
  std::vector<Record> take_records() override { return std::move(records_); }

 private:
  template <class T>
  T* at(std::int64_t offset) const {
    return reinterpret_cast<T*>(memory_ + offset);
  }
  void check(int error, const char* doing) const { executor::check(table_, error, doing); }
  void copy(void* to, const void* from, std::int64_t bytes) const;
  executor::Operand operand(std::int64_t tensor, std::int64_t row_stride, std::int64_t column_stride) const;
  void* wide_of(const DeviceTensor& t) const { return at<void>(t.rounded ? t.wide : t.values); }

  void check_units() const;
  void prepare();
  void wait(const char* doing);
  std::uint8_t* stage(std::int64_t bytes);
  void send_tables();
  void send(std::span<const DeviceArgument> arguments, double scale);
  void round_argument(const DeviceArgument& argument, double scale, std::uint8_t* stored);

  // A tensor, -1 for none, and the product that makes it.
  struct Product {
    std::int64_t tensor;
    executor::ProductArgs args;
  };
  static constexpr std::size_t most_at_once = 3;  // the gradients of a layer

  // What follows is enqueued; what is listed, by as few launches as the device can.
  void forward_layer(std::int64_t l) const;
  void backward_layer(std::int64_t l, std::int64_t gradient) const;
  void round(std::initializer_list<std::int64_t> tensors, FormatId wide) const;
  void multiply(std::initializer_list<Product> products) const;
  void measure(const DevicePass& pass) const;

  void collect();
  void complete(Record& record, const DeviceTensor& tensor, const std::uint8_t* results,
                ops::Statistics& scratch) const;

  const executor::DeviceTable& table_;
  Arithmetic arithmetic_;
  std::vector<Layer> layers_;
  std::int64_t batch_;
  double loss_scale_;
  DevicePlan plan_;
  executor::Stream stream_ = nullptr;
  std::uint8_t* memory_ = nullptr;
  std::vector<executor::Pinned> staged_;  // what the device may still copy from
  std::int64_t staged_bytes_ = 0;
  std::vector<Record> records_;  // from forward() on, with what rounding did to arguments
};

}  // namespace gradkern::chain
