// Statistics of many tensors, as columns; and the merge of moments.
#include <algorithm>
#include <tuple>

#include "base/expects.hpp"
#include "bindings/array_view.hpp"
#include "bindings/summary.hpp"

namespace gradkern::bindings {
namespace {

// A Summary as one row of a NumPy structured array. Its cells are rows[row_begin .. row_end).
struct Record {
  std::int64_t size, nan, pos_inf, neg_inf, zero, negative, subnormal, first_nonfinite;
  double amax, amin, finite, mean, mean_rest, l1;
  double deviations[3], squares[3];  // big, medium, small
  std::int64_t first_binade, row_begin, row_end;
};

Record record_of(const chain::Summary& s, std::int64_t row_begin) {
  const auto& m = s.moments;
  const auto rows = static_cast<std::int64_t>(s.cells.size()) / ops::cell_count;
  return {s.size,
          s.nan,
          s.pos_inf,
          s.neg_inf,
          s.zero,
          s.negative,
          s.subnormal,
          s.first_nonfinite,
          s.amax,
          s.amin,
          m.finite,
          m.mean,
          m.mean_rest,
          m.l1,
          {m.deviations.big, m.deviations.medium, m.deviations.small},
          {m.squares.big, m.squares.medium, m.squares.small},
          s.first_binade,
          row_begin,
          row_begin + rows};
}

using Parts = std::tuple<double, double, double>;
using MomentsTuple = std::tuple<double, double, double, double, Parts, Parts>;

ops::SquareSum sum_from(const Parts& p) { return {std::get<0>(p), std::get<1>(p), std::get<2>(p)}; }
Parts parts_of(const ops::SquareSum& s) { return {s.big, s.medium, s.small}; }

ops::Moments moments_from(const MomentsTuple& t) {
  return {std::get<0>(t), std::get<1>(t),           std::get<2>(t),
          std::get<3>(t), sum_from(std::get<4>(t)), sum_from(std::get<5>(t))};
}

py::tuple statistics(const std::vector<ArrayView>& tensors, const std::vector<int>& format_ids) {
  base::expects(tensors.size() == format_ids.size(), "statistics: tensors and formats differ in number");
  const Run run(tensors);
  std::vector<chain::Source> stored;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto format = format_from(format_ids[i]);
    stored.push_back({format, bits_of(tensors[i], format), tensors[i].size()});
  }
  std::vector<chain::Summary> summaries;
  {
    py::gil_scoped_release release;
    summaries = chain::summarise(run.executor_of_list(), stored);
  }
  py::array_t<Record> records(static_cast<py::ssize_t>(summaries.size()));
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < summaries.size(); ++i) {
    records.mutable_data()[i] = record_of(summaries[i], rows);
    rows = records.data()[i].row_end;
  }
  py::array_t<std::int64_t> cells({static_cast<py::ssize_t>(rows), py::ssize_t(ops::cell_count)});
  std::int64_t* next = cells.mutable_data();
  for (const auto& s : summaries) next = std::copy(s.cells.begin(), s.cells.end(), next);
  return py::make_tuple(records, cells);
}

}  // namespace

void bind_statistics(py::module_& m) {
  PYBIND11_NUMPY_DTYPE(Record, size, nan, pos_inf, neg_inf, zero, negative, subnormal, first_nonfinite, amax, amin,
                       finite, mean, mean_rest, l1, deviations, squares, first_binade, row_begin, row_end);
  m.def(
      "statistics_of",
      [](const ArrayView& tensor, int format_id) {
        const Run run({&tensor});
        const auto format = format_from(format_id);
        const chain::Source stored{format, bits_of(tensor, format), tensor.size()};
        chain::Summary summary;
        {
          py::gil_scoped_release release;
          summary = chain::summarise(run.executor_of_list(), stored);
        }
        return summary_to_dict(summary);
      },
      py::arg("tensor"), py::arg("format"));
  m.def("statistics", &statistics, py::arg("tensors"), py::arg("formats"));
  m.def(
      "merge_moments",
      [](const MomentsTuple& a, const MomentsTuple& b) {
        ops::Moments sum = moments_from(a);
        sum.merge(moments_from(b));
        return MomentsTuple(sum.finite, sum.mean, sum.mean_rest, sum.l1, parts_of(sum.deviations),
                            parts_of(sum.squares));
      },
      py::arg("a"), py::arg("b"), "(finite, mean, mean_rest, l1, deviations, squares) of two tensors together.");
  m.attr("cell_edges") = std::vector<double>(std::begin(ops::cell_edges), std::end(ops::cell_edges));
}

}  // namespace gradkern::bindings
