// Where everything of a run on a device lies in its one allocation, from the shapes: offsets in bytes from its start.
#pragma once

#include <span>
#include <vector>

#include "chain/probe.hpp"
#include "executor/device.hpp"

namespace gradkern::chain {

struct DeviceTensor {
  std::int64_t layer;
  Role role;
  std::int64_t size;
  bool given;       // an argument, which the host rounds
  bool rounded;     // else what makes it makes it in storage
  bool by_pattern;  // how it is measured
  std::int64_t values = 0;
  std::int64_t wide = 0;    // where its values lie before they are rounded
  std::int64_t counts = 0;  // of rounding on the device: one RoundingCounts per chunk
  // By pattern: how often each occurs, and the first entry that is not finite. Else its binades, and a partial result per
  // chunk.
  std::int64_t cells = 0, partials = 0;
};

struct DeviceArgument {
  std::int64_t tensor;
  Source source;
};

// Arguments that one copy takes to the device: [begin, end) of all. `layer` is the first that needs them.
struct DevicePart {
  std::int64_t layer, begin, end;
};

// Indices of tensors; -1 is none.
struct DeviceLayer {
  std::int64_t weight, bias, z, h, dz, dw, db, dh;  // dh: of this layer's input
};

// The tensors of one direction, of which the first is given. Those measured by chunks go through one list.
struct DevicePass {
  std::int64_t begin = 0, end = 0;
  std::vector<std::int64_t> first_chunk{0};
  std::int64_t first_chunks = 0, descriptors = 0, partials = 0, cells = 0;
};

struct DevicePlan {
  DevicePlan(const Arithmetic&, const std::vector<Layer>&, const Source& input, std::int64_t batch, double loss_scale,
             bool measured, std::int64_t part_bytes = usual_part_bytes);

  // A part is large enough to be copied at full speed, and small enough that the device need not wait long for the first.
  static constexpr std::int64_t usual_part_bytes = std::int64_t(8) << 20;
  // How much the host holds of arguments that are on their way to the device, before it waits for them.
  std::int64_t most_staged_bytes() const { return 16 * part_bytes; }

  const DeviceTensor& tensor(std::int64_t index) const { return tensors[static_cast<std::size_t>(index)]; }
  std::span<const DeviceArgument> arguments_of(const DevicePart& part) const {
    return std::span(arguments).subspan(static_cast<std::size_t>(part.begin),
                                        static_cast<std::size_t>(part.end - part.begin));
  }
  std::int64_t planned_bytes() const;

  bool measured;
  std::int64_t part_bytes;
  FormatId storage;
  std::vector<DeviceTensor> tensors;  // in the order of their records
  std::vector<DeviceLayer> layers;
  std::vector<DeviceArgument> arguments;  // without the gradient, in the order in which layers need them and they lie
  std::vector<DevicePart> parts;
  DevicePass forward, backward;
  std::int64_t cleared = 0;                           // what starts as zeros is [0, cleared)
  std::int64_t fetched = 0;                           // what comes back is [0, fetched)
  std::int64_t tables_begin = 0, tables_end = 0;      // what the host says
  std::int64_t ones = 0;                              // in storage, batch of them
  std::int64_t staged_bytes = 0, largest_staged = 0;  // page-locked for the tables, the arguments and the gradient
  std::int64_t bytes = 0;

 private:
  std::int64_t add(std::int64_t layer, Role role, std::int64_t size, bool rounded, bool given = false);
  void add_tensors(const Arithmetic&, const std::vector<Layer>&, const Source& input, std::int64_t batch,
                   double loss_scale);
  template <class T>
  std::int64_t take(std::int64_t count);
  template <class F>
  void place_results();
  void place_arguments();
  void stage(std::int64_t bytes_of_block);
  void place_values(const Arithmetic&, std::int64_t batch);
  void place_wide(const Arithmetic&);
};

}  // namespace gradkern::chain
