package metrics

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Events writes a TensorBoard event file: TFRecords of Event messages, encoded by
// hand (field numbers of tensorflow/core/util/event.proto and framework/summary.proto).
type Events struct {
	f   *os.File
	now func() time.Time
}

// OpenEvents creates a new event file in dir. For a run that goes on after
// resumeStep (-1 for a new run) it tells TensorBoard to forget what older files of the directory say of
// later steps.
func OpenEvents(dir string, resumeStep int64) (*Events, error) {
	return openEvents(dir, resumeStep, time.Now)
}

func openEvents(dir string, resumeStep int64, now func() time.Time) (*Events, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("%w; check the output directory", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	// TensorBoard reads a directory's files in order of name; the process id
	// keeps two runs started in one second apart.
	name := fmt.Sprintf("events.out.tfevents.%010d.%s.%d", now().Unix(), filepath.Base(host), os.Getpid())
	var f *os.File
	for n := 0; ; n++ {
		f, err = os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s.%d", name, n)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if !os.IsExist(err) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w; check the output directory", err)
	}
	e := &Events{f, now}
	err = e.event(0, appendBytes(nil, 3, []byte("brain.Event:2"))) // file_version
	if err == nil && resumeStep >= 0 {
		err = e.event(resumeStep+1, appendBytes(nil, 7, appendVarint(nil, 1, 1))) // session_log: START
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return e, nil
}

// Scalars writes one step's values, in order of name.
func (e *Events) Scalars(step int64, values map[string]float64) error {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	var summary []byte
	for _, name := range names {
		v := appendBytes(nil, 1, []byte(name)) // tag
		v = append(v, 2<<3|5)                  // simple_value, 32 bits
		v = binary.LittleEndian.AppendUint32(v, math.Float32bits(float32(values[name])))
		summary = appendBytes(summary, 1, v)
	}
	return e.event(step, appendBytes(nil, 5, summary))
}

// Image writes a PNG of the given size.
func (e *Events) Image(step int64, tag string, png []byte, width, height int) error {
	img := appendVarint(nil, 1, uint64(height))
	img = appendVarint(img, 2, uint64(width))
	img = appendVarint(img, 3, 3) // colorspace: RGB
	img = appendBytes(img, 4, png)
	v := appendBytes(nil, 1, []byte(tag))
	v = appendBytes(v, 4, img)
	return e.event(step, appendBytes(nil, 5, appendBytes(nil, 1, v)))
}

// Exponents writes histograms as TensorBoard shows them, one for each part and
// type: "exponents/mlp3 f16". Numbers without an exponent are left out.
func (e *Events) Exponents(step int64, es []Exponents) error {
	var summary []byte
	for i := range es {
		x := &es[i]
		var limits, counts []byte
		var n, sum, squares float64
		for j, c := range x.Counts {
			// A bucket's numbers count as its exponent; it ends halfway to the next.
			at, w := float64(x.First+j), float64(c)
			limits = appendDouble(limits, at+0.5)
			counts = appendDouble(counts, w)
			n, sum, squares = n+w, sum+w*at, squares+w*at*at
		}
		if n == 0 {
			continue
		}
		var h []byte
		for f, v := range []float64{float64(x.First), float64(x.First + len(x.Counts) - 1), n, sum, squares} { // min, max, num, sum, sum_squares
			h = appendDouble(append(h, byte((f+1)<<3|1)), v)
		}
		h = appendBytes(h, 6, limits) // bucket_limit
		h = appendBytes(h, 7, counts) // bucket
		v := appendBytes(nil, 1, []byte("exponents/"+x.Block+" "+x.DType))
		summary = appendBytes(summary, 1, appendBytes(v, 5, h)) // histo
	}
	return e.event(step, appendBytes(nil, 5, summary))
}

func appendDouble(b []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
}

// Close closes the file.
func (e *Events) Close() error { return e.f.Close() }

// event writes one Event: wall time, step, and an already encoded field.
func (e *Events) event(step int64, what []byte) error {
	wall := float64(e.now().UnixNano()) / 1e9
	b := appendDouble([]byte{1<<3 | 1}, wall)
	b = appendVarint(b, 2, uint64(step))
	b = append(b, what...)
	_, err := e.f.Write(frame(b))
	return err
}

// frame wraps data as a TFRecord: length, its checksum, data, its checksum.
func frame(data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, len(data)+16), uint64(len(data)))
	b = binary.LittleEndian.AppendUint32(b, maskedCRC(b))
	b = append(b, data...)
	return binary.LittleEndian.AppendUint32(b, maskedCRC(data))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is CRC-32C, rotated right by 15 bits and offset, as TFRecord has it.
func maskedCRC(data []byte) uint32 {
	c := crc32.Checksum(data, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

func appendVarint(b []byte, field int, v uint64) []byte {
	return binary.AppendUvarint(append(b, byte(field<<3)), v)
}

func appendBytes(b []byte, field int, data []byte) []byte {
	b = binary.AppendUvarint(append(b, byte(field<<3|2)), uint64(len(data)))
	return append(b, data...)
}
