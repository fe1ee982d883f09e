package emu

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// Kernel is a kernel compiled for the emulator.
type Kernel struct {
	K       *kern.Kernel
	Entries []cuda.Entry
	PTX     string
	module  *simt.Module
}

// Compile compiles k for t, with the compiler's source lines in reports.
func Compile(k *kern.Kernel, t *cuda.Target) (*Kernel, error) {
	text, entries, err := cuda.Text(k, t, true)
	if err != nil {
		return nil, err
	}
	m, err := simt.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("kernel %s for %s: %w", k.Name, t.Name, err)
	}
	return &Kernel{k, entries, text, m}, nil
}

// Run runs k on bufs, one slice of elements for each buffer, and writes back
// what k writes. Buffers that k only writes start uninitialised.
func (k *Kernel) Run(o simt.Options, bufs [][]float64) (simt.Stats, error) {
	var data [][]byte
	for i, b := range k.K.Bufs {
		d := make([]byte, len(bufs[i])*b.DType.Size())
		if err := Encode(b.DType, d, bufs[i]); err != nil {
			return simt.Stats{}, err
		}
		data = append(data, d)
	}
	stats, err := k.RunBytes(o, data)
	if err != nil {
		return stats, err
	}
	for i, b := range k.K.Bufs {
		if b.Mode != kern.In {
			Decode(b.DType, bufs[i], data[i])
		}
	}
	return stats, nil
}

// RunBytes is Run on elements as they are stored.
func (k *Kernel) RunBytes(o simt.Options, data [][]byte) (simt.Stats, error) {
	mach := simt.NewMachine(o)
	var dev []*simt.Buffer
	for i, b := range k.K.Bufs {
		d := mach.Alloc(fmt.Sprintf("#%d %s", i, b.Name), len(data[i]))
		if b.Mode != kern.Out {
			copy(d.Bytes(), data[i])
			d.Init()
		}
		dev = append(dev, d)
	}
	if err := k.launch(mach, func(i int) uint64 { return dev[i].Addr() }); err != nil {
		return mach.Stats(), err
	}
	for i, b := range k.K.Bufs {
		if b.Mode != kern.In {
			copy(data[i], dev[i].Bytes())
		}
	}
	return mach.Stats(), nil
}

// launch runs the entries of k on buffers at the given addresses.
func (k *Kernel) launch(mach *simt.Machine, addr func(buf int) uint64) error {
	for i := range k.Entries {
		l, err := Launch(&k.Entries[i], addr)
		if err == nil {
			err = mach.Launch(k.module, l)
		}
		if err != nil {
			return fmt.Errorf("kernel %s: %w", k.K.Name, err)
		}
	}
	return nil
}

// Launch is a launch of an entry on buffers at the given addresses.
func Launch(e *cuda.Entry, addr func(buf int) uint64) (simt.Launch, error) {
	l := simt.Launch{Entry: e.Name, Grid: e.Grid, Block: [3]int{e.Block, 1, 1}, Shared: e.Shared, Cluster: [3]int{max(1, e.Cluster), 1, 1}}
	for _, m := range e.Maps {
		code, err := simt.MapOf(addr(m.Arg)+uint64(m.Offset), m.DType.String(), m.Dims, m.Strides, m.Box, m.Swizzle)
		if err != nil {
			return l, fmt.Errorf("tensor map of buffer %d: %w", m.Arg, err)
		}
		l.Params = append(l.Params, code)
	}
	for _, i := range e.Args {
		l.Params = append(l.Params, addr(i))
	}
	return l, nil
}

// Encode stores x as elements of type d.
func Encode(d ir.DType, to []byte, x []float64) error {
	f, small := d.Format()
	for i, v := range x {
		switch {
		case small:
			binary.LittleEndian.PutUint16(to[2*i:], f.Encode(float32(v)))
		case d == ir.F32:
			binary.LittleEndian.PutUint32(to[4*i:], math.Float32bits(float32(v)))
		case d == ir.I32:
			binary.LittleEndian.PutUint32(to[4*i:], uint32(int32(v)))
		case d.Size() == 1:
			to[i] = byte(int8(v))
		default:
			return fmt.Errorf("elements of type %s cannot be stored", d)
		}
	}
	return nil
}

// Decode is the inverse of Encode.
func Decode(d ir.DType, to []float64, from []byte) {
	f, small := d.Format()
	for i := range to {
		switch {
		case small:
			to[i] = float64(f.Decode(binary.LittleEndian.Uint16(from[2*i:])))
		case d == ir.F32:
			to[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(from[4*i:])))
		case d == ir.I32:
			to[i] = float64(int32(binary.LittleEndian.Uint32(from[4*i:])))
		case d == ir.I8:
			to[i] = float64(int8(from[i]))
		default:
			to[i] = float64(from[i])
		}
	}
}
