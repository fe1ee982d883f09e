package exec

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Device is an accelerator with memory of its own, as a System uses it: by one goroutine at a time.
// Things happen on it in the order of the calls, but Upload, Download, Run and Replay may return
// before they have: Wait returns when all is done, with the error of what failed meanwhile. Until
// then host memory given to Upload and Download must stay what it is.
type Device interface {
	// Name is what its maker calls it, such as "NVIDIA H100 80GB HBM3".
	Name() string
	// Best picks the target that runs fastest on it; the error says why none runs.
	Best(targets []string) (string, error)
	// Memory is how many bytes it has.
	Memory() int64
	// Load takes the code of an Object for target.
	Load(target string, parts []Part) (Code, error)
	// Alloc takes memory, zeroed if asked for; its address is a multiple of 256.
	Alloc(bytes int64, zeroed bool) (addr uint64, err error)
	Free(addr uint64) error
	// Pin takes zeroed host memory that is copied at full speed.
	Pin(bytes int64) ([]byte, error)
	Unpin(memory []byte) error
	Upload(to uint64, from []byte) error
	Download(to []byte, from uint64) error
	// Run starts calls one by one.
	Run(calls []Call) error
	// Record makes one piece of calls, which starts faster. after[i] are the calls before call i
	// that must be over when it starts; it may run beside others. If after is nil, each call starts
	// when the one before it is over.
	Record(calls []Call, after [][]int) (Recording, error)
	// Time runs calls and waits; ends[i] becomes the time from the start of the first call to the
	// end of call i.
	Time(calls []Call, ends []time.Duration) error
	Wait() error
	Close() error
}

// Part is a piece of an Object's code that is loaded on its own.
type Part struct {
	Text   string
	Binary []byte // what Text becomes for the object's target; nil if that is left to the device
}

// Code is an Object that is loaded onto a Device.
type Code interface {
	// Prepare makes a call of an entry; buffers are the addresses of the launch's.
	Prepare(e *Entry, buffers []uint64) (Call, error)
	Close() error
}

// Call is an entry with its arguments; what is inside is the Device's business.
type Call any

// Recording is a series of calls that Device.Record has made.
type Recording interface {
	Replay() error
	Close() error
}

var devices = struct {
	sync.Mutex
	open map[string]func() (Device, error)
}{open: map[string]func() (Device, error){}}

// RegisterDevice makes a kind of device known, such as "cuda". Packages that drive one call it
// when they are initialised; this package imports none, so that trainers for processors stay
// static binaries.
func RegisterDevice(kind string, open func() (Device, error)) {
	devices.Lock()
	defer devices.Unlock()
	devices.open[kind] = open
}

func openDevice(kind string) (Device, error) {
	devices.Lock()
	open := devices.open[kind]
	devices.Unlock()
	if open == nil {
		return nil, fmt.Errorf("kernels are for a %s device, and no package that drives one is linked in; import runtime/device/%s", kind, kind)
	}
	return open()
}

// launching is how the kernels of a program on a device are started.
type launching string

const (
	launchGraph  launching = "graph"  // recorded once, then replayed; each waits for those alone whose memory it needs
	launchChain  launching = "chain"  // recorded and replayed, one after the other
	launchSingle launching = "single" // one by one
	launchWait   launching = "wait"   // one by one, each after the end of the other, to find one that fails
)

func howToLaunch() (launching, error) {
	switch l := launching(os.Getenv("GOUACHE_LAUNCH")); l {
	case "":
		return launchGraph, nil
	case launchGraph, launchChain, launchSingle, launchWait:
		return l, nil
	default:
		return "", fmt.Errorf("exec: GOUACHE_LAUNCH=%q is not known; set %s, %s, %s or %s", string(l), launchGraph, launchChain, launchSingle, launchWait)
	}
}

// load opens the device that objects are for and loads the one for target, or without a target the
// best.
func (s *System) load(objects []Object, target string) (err error) {
	if s.launching, err = howToLaunch(); err != nil {
		return err
	}
	var have []string
	for _, o := range objects {
		have = append(have, o.Target)
	}
	if s.device, err = openDevice(objects[0].Device); err != nil {
		return fmt.Errorf("%s: %w", s.spec.Name, err)
	}
	defer func() {
		if err != nil {
			s.unload()
		}
	}()
	if target != "" {
		have = []string{target}
	}
	if s.target, err = s.device.Best(have); err != nil {
		return fmt.Errorf("%s: %w", s.spec.Name, err)
	}
	i := slices.IndexFunc(objects, func(o Object) bool { return o.Target == s.target })
	if i < 0 {
		return fmt.Errorf("%s: internal: the device wants kernels for %s, there are %s", s.spec.Name, s.target, strings.Join(have, ", "))
	}
	s.entries = objects[i].Entries
	if err := s.checkEntries(); err != nil {
		return fmt.Errorf("%s: internal: kernels for %s: %w; regenerate the package", s.spec.Name, s.target, err)
	}
	parts, err := objects[i].parts()
	if err == nil {
		s.code, err = s.device.Load(s.target, parts)
	}
	if err != nil {
		return fmt.Errorf("%s: kernels for %s: %w", s.spec.Name, s.target, err)
	}
	return nil
}

// unload gives up what load took.
func (s *System) unload() []error {
	var errs []error
	if s.code != nil {
		errs = append(errs, s.code.Close())
		s.code = nil
	}
	if s.device != nil {
		errs = append(errs, s.device.Close())
		s.device = nil
	}
	return errs
}

func (s *System) checkEntries() error {
	if len(s.entries) != len(s.spec.Kernels) {
		return fmt.Errorf("there are entries of %d kernels, and %d kernels", len(s.entries), len(s.spec.Kernels))
	}
	for i, k := range s.spec.Kernels {
		if k.Sizes != nil && len(k.Sizes) != k.Args {
			return fmt.Errorf("kernel %s: sizes of %d buffers, it has %d", k.Name, len(k.Sizes), k.Args)
		}
		if len(s.entries[i]) == 0 {
			return fmt.Errorf("kernel %s has no entry", k.Name)
		}
		inside := func(arg int) bool { return arg >= 0 && arg < k.Args }
		for _, e := range s.entries[i] {
			for _, m := range e.Maps {
				if !inside(m.Arg) {
					return fmt.Errorf("kernel %s: entry %s maps buffer %d of %d", k.Name, e.Name, m.Arg, k.Args)
				}
			}
			for _, a := range e.Args {
				if !inside(a) {
					return fmt.Errorf("kernel %s: entry %s takes buffer %d of %d", k.Name, e.Name, a, k.Args)
				}
			}
		}
	}
	return nil
}

// parts are the pieces of the code of an object for a device.
func (o *Object) parts() ([]Part, error) {
	code, err := unpacked(o.Code)
	if err != nil {
		return nil, err
	}
	binaries, err := unpacked(o.Binaries)
	if err != nil {
		return nil, err
	}
	var parts []Part
	for t := range strings.SplitSeq(string(code), "\x00") {
		if t != "" {
			parts = append(parts, Part{Text: t})
		}
	}
	if len(o.Lengths) == 0 {
		return parts, nil
	}
	total := 0
	for _, n := range o.Lengths {
		total += n
	}
	if len(o.Lengths) != len(parts) || total != len(binaries) || slices.Min(o.Lengths) <= 0 {
		return nil, fmt.Errorf("damaged: %d texts, and binaries of %d bytes in %d; regenerate the package", len(parts), o.Lengths, len(binaries))
	}
	for i, n := range o.Lengths {
		parts[i].Binary, binaries = binaries[:n:n], binaries[n:]
	}
	return parts, nil
}

// unpacked is data without its compression, if it has one.
func unpacked(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return data, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err == nil {
		data, err = io.ReadAll(r)
	}
	if err != nil {
		return nil, fmt.Errorf("damaged: %w; regenerate the package", err)
	}
	return data, nil
}
