// Package metrics records what a run does and shows it: metrics.jsonl,
// TensorBoard event files, a progress line on the terminal, and an HTML report
// that is one file.
//
//   - [Log] appends one JSON object a line and, on resume, first cuts the file
//     back to the resumed step, so that no step is there twice.
//   - [Events] writes the same scalars for TensorBoard.
//   - [Progress] shows step, loss, rate and time left.
//   - [Report] puts charts, images, tables and text on a page without external
//     resources.
//   - [ReadHardware] and [PeakMemory] say what it ran on.
//
// What it is not: a metrics server, and no judge of samples: it plots numbers
// that others compute.
//
// Start with [OpenLog] in a trainer and [Report] after it.
package metrics
