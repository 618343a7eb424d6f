// The formats' constants, and convert: the cast with its report.

#include "base/expects.hpp"
#include "bindings/array_view.hpp"
#include "bindings/pending_counts.hpp"

namespace gradkern::bindings {

formats::FormatId format_from(int id) {
  base::expects(id >= 0 && id < formats::format_count, "format: unknown id");
  return static_cast<formats::FormatId>(id);
}

namespace {

py::dict describe(formats::FormatId id) {
  return formats::visit(id, [](auto f) {
    using F = decltype(f);
    using L = formats::Layout<F>;
    const auto value = [](std::uint64_t bits) {
      return formats::decode<F>(static_cast<typename F::container>(bits << F::container_shift));
    };
    py::dict d;
    d["name"] = F::name;
    d["bits"] = L::bits;
    d["container_bits"] = 8 * sizeof(typename F::container);
    d["significand_bits"] = F::significand_bits;
    d["min_exponent"] = L::min_exponent;
    d["max"] = value(L::max_finite);
    d["smallest_normal"] = value(L::smallest_normal);
    d["smallest_subnormal"] = value(1);
    d["epsilon"] = formats::exp2i(1 - F::significand_bits);
    d["has_inf"] = F::has_inf;
    return d;
  });
}

}  // namespace

formats::Mode mode_from(int rounding, int overflow, int subnormals, std::uint64_t seed) {
  base::expects(rounding >= 0 && rounding <= 2 && overflow >= 0 && overflow <= 1 && subnormals >= 0 && subnormals <= 1,
                "mode: unknown rounding, overflow or subnormals");
  return {static_cast<formats::Rounding>(rounding), static_cast<formats::Overflow>(overflow),
          static_cast<formats::Subnormals>(subnormals), seed};
}

py::array wide_array(formats::FormatId computed_in, std::vector<py::ssize_t> shape) {
  if (executor::wide_format(computed_in) == formats::FormatId::float64) return py::array_t<double>(std::move(shape));
  return py::array_t<float>(std::move(shape));
}

py::dict counts_to_dict(const ops::RoundingCounts& counts) {
  static const char* names[] = {"exact", "inexact", "overflow", "subnormal", "flushed", "nan", "inf"};
  py::dict d;
  for (int e = 0; e < formats::event_count; ++e) d[names[e]] = counts.events[e];
  d["first_overflow"] = counts.first_overflow;
  d["first_flushed"] = counts.first_flushed;
  d["max_ulp"] = counts.max_ulp;
  const auto& s = counts.signal;
  const auto& n = counts.noise;
  d["signal"] = py::make_tuple(s.big, s.medium, s.small);
  d["noise"] = py::make_tuple(n.big, n.medium, n.small);
  return d;
}

void bind_formats(py::module_& m) {
  m.def(
      "formats",
      [] {
        std::vector<py::dict> list;
        for (int id = 0; id < formats::format_count; ++id) list.push_back(describe(format_from(id)));
        return list;
      },
      "The constants of every format, in the order of their ids.");
  m.def(
      "convert",
      [](const ArrayView& source, int source_format, const ArrayView& stored, int format, double scale, int rounding,
         int overflow, int subnormals, std::uint64_t seed, std::uint64_t stream) -> py::object {
        ops::RoundingCounts counts;
        executor::ConvertArgs args{};
        args.size = source.size();
        args.source_format = format_from(source_format);
        args.format = format_from(format);
        args.source = bits_of(source, args.source_format);
        args.stored = writable_bits_of(stored, args.format);
        base::expects(stored.size() == source.size(), "convert: source and stored differ in size");
        args.scale = scale;
        args.mode = mode_from(rounding, overflow, subnormals, seed);
        args.stream = stream;
        const Run run({&source, &stored});
        if (source.place() && stored.place()) return py::cast(PendingCounts(*run.place(), args));
        args.counts = &counts;
        {
          py::gil_scoped_release release;
          const auto& e = run.executor();
          e.convert(e, args);
        }
        return counts_to_dict(counts);
      },
      py::arg("source"), py::arg("source_format"), py::arg("stored"), py::arg("format"), py::arg("scale"),
      py::arg("rounding"), py::arg("overflow"), py::arg("subnormals"), py::arg("seed"), py::arg("stream"),
      "Counts of a rounding, as a dict; on a device PendingCounts, which waits for them when they are fetched.");
}

}  // namespace gradkern::bindings
