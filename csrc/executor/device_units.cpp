// Which matrix units a device has: its own, and those whose rows in mma/units.hpp say the same of the same instruction.
#include <stdexcept>
#include <string>

#include "executor/device.hpp"
#include "mma/units.hpp"

namespace gradkern::executor {
namespace {

std::string name_of(FormatId format) {
  return formats::visit(format, [](auto f) { return std::string(decltype(f)::name); });
}

std::string device_words(const DeviceTable& table, mma::Unit unit) {
  int device = 0;
  DeviceDescription d{};
  check(table, table.get_device(&device), "get_device");
  check(table, table.describe(device, &d), "describe");
  const std::string has = unit == mma::Unit::none ? "no unit that is known" : mma::unit_names[static_cast<int>(unit)];
  const std::string on = d.major ? ", sm_" + std::to_string(10 * d.major + d.minor) + "," : "";
  return "device '" + std::string(table.name) + "'" + on + " has " + has;
}

}  // namespace

void check_unit(const DeviceTable& table, const ProductArgs& args) {
  const auto wanted = static_cast<mma::Unit>(args.unit);
  if (wanted == mma::Unit::none) return;
  const FormatId a = mma::operand_format(args.a.format, args.operands),
                 b = mma::operand_format(args.b.format, args.operands);
  const mma::Row* row = mma::find_row(wanted, a, b, args.instruction_k);
  const std::string name = mma::unit_names[args.unit];
  const std::string operands = name_of(a) + " times " + name_of(b);
  if (!row) throw std::invalid_argument("unit " + name + " has no such instruction for " + operands);
  if (row->form == mma::Form::fused_half) return;  // the fma chain by another name
  int unit = 0;
  check(table, table.matrix_unit(&unit), "matrix_unit");
  const auto found = static_cast<mma::Unit>(unit);
  const mma::Row* own = mma::find_row(found, a, b, row->k);
  if (own && mma::is_same(*own, *row)) return;
  throw std::invalid_argument("unit " + name + " (" + row->instruction + ", " + operands + "): " +
                              device_words(table, found) + ", whose bits are others; the CPU computes every unit");
}

}  // namespace gradkern::executor
