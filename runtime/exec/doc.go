// Package exec executes what gouachec has compiled: it loads a system's kernels, lays out the
// memory that was planned for it, and runs its programs.
//
// A generated package holds a Spec: kernel objects for several processors or GPUs, tables of stored
// tensors and launches, and one Go function per program that calls Run.Launch in a straight
// line. Open turns it into a System; a System gives Models (the stored tensors, in one block of
// memory), a Model gives Programs (named inputs and outputs, and Run). Everything that a run
// needs is laid out beforehand, so Program.Run allocates nothing and decides nothing.
//
//	sys, err := demo.Open(exec.Options{})
//	m, err := sys.Model("prior")
//	err = m.Init(seed)
//	p, err := m.Program("train")
//	tokens, err := p.InputI32("tokens")
//	copy(tokens, batch)
//	p.Run()
//	loss, err := p.OutputF32("loss")
//
// Results have the same bits for any number of threads: chunks are fixed by the plan, and
// random initial values belong to a seed, a tensor's name and an element's number.
//
// Kernels for a GPU run on a Device, which a package of its own drives (runtime/device/cuda) and
// which generated packages import. The host keeps a copy of the stored tensors. A tensor is copied
// when one side asks for what the other has changed: to the host when somebody asks for it (Tensor,
// F32, Globals, Select, a method of Tensor), to the device when a program that uses it runs. So a view
// of a stored tensor is of the moment it was asked for: ask again after a run. Inputs and outputs
// are copied by every run, and views of them stay good. A run's launches are recorded once and
// replayed as one, each behind the launches whose memory it needs, read or written, and beside the
// others. GOUACHE_LAUNCH=chain keeps their order, single starts them one by one, and wait waits for
// each, which tells the launch that fails.
//
// The package knows no training loop, no data and no file formats (see runtime/train,
// runtime/feed, runtime/snapshot), and it imports no part of the compiler. Start at Open.
package exec
