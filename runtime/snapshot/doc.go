// Package snapshot reads and writes safetensors files, and saves training state
// so that no kill, full disk or truncated copy can lose it.
//
// A snapshot is a directory:
//
//	out/prior/
//	  latest                    "step-00001200"
//	  step-00001200/
//	    model.safetensors       weights, loadable by other tools
//	    optimizer.safetensors   moments, scales, error buffers (optional)
//	    manifest.json           model, fingerprint, config, step, seed, cursor, hashes
//
// [Store.Save] writes everything into a temporary directory beside the others,
// syncs it to disk, manifest last, and renames it; only then does latest move and
// are old snapshots pruned. A kill at any point leaves the previous snapshot or
// the new one. [Store.Load] checks every hash, and that the snapshot is of the
// model that asks.
//
// Tensors travel as raw little-endian bytes ([Tensor]): views of the trainer's memory are
// written, and read into, without another copy. The 16-bit formats e6m9
// and ue6m10 are stored as U16 codes; their names go into the file's metadata
// under the tensor's name.
//
// What it is not: a format of our own, or a place for data. It knows nothing of
// ranks: whoever calls Save hands in whole tensors, and may have all ranks agree
// through [Store.Agree].
//
// Start with [Store] for training state, [ReadFile] and [WriteFile] for single
// safetensors files.
package snapshot
