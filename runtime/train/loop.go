package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/feed"
	"github.com/gouache-ml/gouache/runtime/metrics"
	"github.com/gouache-ml/gouache/runtime/snapshot"
)

// Stage is the training of one model: what the loop doesn't know about it.
type Stage struct {
	Name     string // of the model: "dvae"
	Unit     string // what Fill counts: "images"
	Options  Options
	Upstream Upstream
	// Fill writes the inputs of the train program for update step, counted from 0,
	// and tells how many units it takes in. It is called for steps in order.
	Fill func(ctx context.Context, step int64) (units float64, err error)
	// Validation writes the inputs of the eval program for validation batch n.
	Validation func(n int) error
	// Extra adds figures to the record of a step, once every log.every steps. May be
	// nil; Observe, called after every run, collects what it needs.
	Observe func() error
	Extra   func(values map[string]float64)
	// Loss is the validation figure the plateau watches; "" is "loss".
	Loss  string
	Close func()
	// Report says which pictures could not be used. May be nil.
	Report func() feed.Report
}

// Loop trains one model.
type Loop struct {
	Model  Model
	Stage  *Stage
	Config *Config
	Text   string       // the resolved configuration, for snapshots
	Resume bool         // go on from the latest snapshot, if there is one
	Log    io.Writer    // progress
	Begin  func() error // called once it is clear that training can go on; may be nil
	// Profile, which may be nil, learns where the time of steps goes. The first step is left
	// out: it meets fresh memory.
	Profile *exec.Profile
}

// ErrInterrupted is returned (wrapped) when the context ended; a snapshot was saved.
var ErrInterrupted = errors.New("interrupted")

// running is a loop under way.
type running struct {
	*Loop
	state
	dir            string
	store          snapshot.Store
	train          Program
	eval           Program // nil without validation
	average        Program // nil without averages
	scalars        []int   // outputs of train that go into the log
	log            *metrics.Log
	events         *metrics.Events
	exponents      *metrics.ExponentsLog // nil unless log.exponents asks for it
	progress       *metrics.Progress
	since          map[string]*mean // scalars since the last record
	units          float64          // since the last record
	clock          time.Time
	saved          int64 // step of the last snapshot, -1 for none
	recent         *metrics.Window
	lastValidation float64
	traced         int // skipped updates that were run again
}

type mean struct {
	sum float64
	n   int
}

// Run trains up to Options.Steps. A run that is complete already returns at once.
func (l *Loop) Run(ctx context.Context) error {
	r := &running{Loop: l, dir: StageDir(l.Config.Out, l.Stage.Name), saved: -1, since: map[string]*mean{}, recent: metrics.NewWindow(50), lastValidation: math.NaN()}
	r.store = snapshot.Store{Dir: r.dir, Keep: l.Config.Snapshot.Keep, Warn: func(s string) { fmt.Fprintln(l.Log, s) }}
	if l.Stage.Close != nil {
		defer l.Stage.Close()
	}
	if err := r.programs(); err != nil {
		return fmt.Errorf("%s: %w", l.Model.Name(), err)
	}
	first, err := r.begin()
	if err != nil {
		return err
	}
	if l.Begin != nil {
		if err := l.Begin(); err != nil {
			return err
		}
	}
	if first >= l.Stage.Options.Steps {
		fmt.Fprintf(l.Log, "%s: trained for %d steps already\n", l.Stage.Name, first)
		return nil
	}
	if err := r.openLogs(first); err != nil {
		return err
	}
	known := r.unusable().Total()
	err = r.steps(ctx, first)
	r.progress.Done()
	if report := r.unusable(); report.Total() > known {
		fmt.Fprintln(l.Log, report)
	}
	for _, c := range []interface{ Close() error }{r.log, r.events, r.exponents} {
		if c == (*metrics.Events)(nil) || c == (*metrics.ExponentsLog)(nil) {
			continue
		}
		if e := c.Close(); err == nil {
			err = e
		}
	}
	return err
}

// unusable is the stage's report, empty where it has none.
func (r *running) unusable() feed.Report {
	if r.Stage.Report == nil {
		return feed.Report{}
	}
	return r.Stage.Report()
}

func (r *running) programs() error {
	var err error
	if r.train, err = r.Model.Program("train"); err != nil {
		return err
	}
	for i, t := range r.train.Outputs() {
		if t.DType == exec.F32 && t.Len() == 1 {
			r.scalars = append(r.scalars, i)
		}
	}
	o := r.Stage.Options
	if o.ValidateEvery > 0 && r.Stage.Validation != nil {
		if r.eval, err = r.Model.Program("eval"); err != nil {
			return err
		}
	}
	if o.AverageDecay > 0 {
		if r.average, err = r.Model.Program("average"); err != nil {
			return err
		}
	}
	return nil
}

// begin sets the weights: new ones, or those of a snapshot; it returns the step to
// go on with.
func (r *running) begin() (int64, error) {
	step, err := r.store.Latest()
	switch {
	case errors.Is(err, snapshot.ErrNone):
		if err := r.Model.Init(r.Config.Seed); err != nil {
			return 0, err
		}
		return 0, nil
	case err != nil:
		return 0, err
	case !r.Resume:
		return 0, fmt.Errorf("%s: has a snapshot of step %d: add -resume to go on from it, or name another -out", r.dir, step)
	}
	snap, err := r.store.Load(step, identity(r.Model))
	if err != nil {
		return 0, err
	}
	defer snap.Close()
	if err := r.accept(snap); err != nil {
		return 0, err
	}
	r.saved = step
	return step, nil
}

// accept takes over a snapshot, if it belongs to this run.
func (r *running) accept(snap *snapshot.Snapshot) error {
	t, err := trained(&snap.Manifest)
	if err != nil {
		return err
	}
	if err := t.Upstream.Check(r.Stage.Upstream, snap.Dir); err != nil {
		return err
	}
	if snap.Seed != r.Config.Seed {
		return fmt.Errorf("%s: was trained with seed %d, this run has seed %d; set seed=%d to go on", snap.Dir, snap.Seed, r.Config.Seed, snap.Seed)
	}
	if err := json.Unmarshal(snap.State, &r.state); err != nil {
		return fmt.Errorf("%s: state: %w", snap.Dir, err)
	}
	return restore(r.Model, snap)
}

// Check tells whether a model that was trained with u can be used with now; where is
// the model's folder, for the error.
func (u Upstream) Check(now Upstream, where string) error {
	for _, p := range []struct{ what, was, is string }{{"dvae", u.DVAE, now.DVAE}, {"tokenizer", u.Tokenizer, now.Tokenizer}} {
		if p.was != p.is && p.was != "" && p.is != "" {
			return fmt.Errorf("%s: was trained with another %s (%.12s, now %.12s): move it away and train it again, or bring that %s back", where, p.what, p.was, p.is, p.what)
		}
	}
	return nil
}

func (r *running) openLogs(first int64) error {
	resume := first
	if first == 0 {
		resume = -1
	}
	if err := makeDir(r.dir); err != nil {
		return err
	}
	var err error
	if r.log, err = metrics.OpenLog(filepath.Join(r.dir, "metrics.jsonl"), resume); err != nil {
		return err
	}
	if r.Config.Log.TensorBoard {
		if r.events, err = metrics.OpenEvents(filepath.Join(r.dir, "events"), resume); err != nil {
			return err
		}
	}
	if r.Config.Log.Exponents > 0 {
		if r.exponents, err = metrics.OpenExponents(filepath.Join(r.dir, "exponents.jsonl"), resume); err != nil {
			return err
		}
	}
	r.progress = metrics.NewProgress(r.Log, r.Stage.Name, r.Stage.Unit, first, r.Stage.Options.Steps)
	return nil
}

// steps is the loop itself. step is the update that comes next, counted from 0;
// after it, step+1 updates are done, and records and snapshots carry that number.
func (r *running) steps(ctx context.Context, first int64) error {
	o := r.Stage.Options
	r.clock = time.Now()
	r.Profile.Reset()
	for step := first; step < o.Steps; step++ {
		if step == first+1 {
			r.Profile.Reset()
		}
		if ctx.Err() != nil {
			return r.interrupted(step)
		}
		values, err := r.update(ctx, step)
		if errors.Is(err, context.Canceled) {
			return r.interrupted(step)
		}
		if err != nil {
			return err
		}
		done := step + 1
		if err := r.judge(done, values); err != nil {
			return err
		}
		last := done == o.Steps
		if r.eval != nil && (done%o.ValidateEvery == 0 || last) {
			if err := r.validate(done, values); err != nil {
				return err
			}
			r.Profile.Mark("validation batches and records")
		}
		if done%r.Config.Log.Every == 0 || last {
			if err := r.record(done, values); err != nil {
				return err
			}
			r.Profile.Mark("records")
		}
		if every := r.Config.Snapshot.Every; last || every > 0 && done%every == 0 {
			if err := r.save(done); err != nil {
				return err
			}
			r.Profile.Mark("snapshots")
		}
		r.Profile.Step()
	}
	return nil
}

func (r *running) interrupted(step int64) error {
	if step == r.saved || step == 0 {
		return fmt.Errorf("%s: %w at step %d; go on with -resume", r.Stage.Name, ErrInterrupted, step)
	}
	if err := r.save(step); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w; step %d is saved, go on with -resume", r.Stage.Name, ErrInterrupted, step)
}

// update does one step and returns the scalars to log. Fill may be interrupted, the
// rest is done whole.
func (r *running) update(ctx context.Context, step int64) (map[string]float64, error) {
	o := r.Stage.Options
	units, err := r.Stage.Fill(ctx, step)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil, err
		}
		return nil, fmt.Errorf("%s: step %d: %w", r.Stage.Name, step, err)
	}
	r.Profile.Mark("data")
	lr := o.StepSize(step, r.Plateau.Halvings)
	err = setScalar(r.train, "lr", lr)
	if err == nil {
		err = setScalar(r.train, "clip", o.ClipNorm(step))
	}
	if err == nil {
		err = setInt(r.train, "update", r.Applied+1)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Model.Name(), err)
	}
	r.Profile.Mark("schedules")
	before := r.scratch()
	values := map[string]float64{"lr": lr}
	if err := r.run(step+1, values); err != nil {
		return nil, err
	}
	outputs := r.train.Outputs()
	for _, i := range r.scalars {
		x, err := outputs[i].F32()
		if err != nil {
			return nil, err
		}
		values[outputs[i].Name] = float64(x[0])
	}
	if r.Stage.Observe != nil {
		if err := r.Stage.Observe(); err != nil {
			return nil, err
		}
	}
	for name, v := range values {
		if strings.HasPrefix(name, "grad_norm") && (math.IsNaN(v) || math.IsInf(v, 0)) {
			continue // a skipped update; the mean is that of the others
		}
		m := r.since[name]
		if m == nil {
			m = &mean{}
			r.since[name] = m
		}
		m.sum += v
		m.n++
	}
	r.units += units
	r.recent.Add(values["loss"])
	r.Profile.Mark("outputs")
	done := step + 1
	if values["skipped"] == 0 {
		r.Applied++
	} else {
		r.explain(done, values, before)
	}
	if r.average != nil && done%o.AverageEvery == 0 && values["skipped"] == 0 {
		decay := o.AverageDecay
		if r.Averaged == 0 {
			decay = 0 // the first call copies
		}
		if err := setScalar(r.average, "decay", decay); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Model.Name(), err)
		}
		r.average.Run()
		r.Averaged++
	}
	now := time.Now()
	r.Seconds += now.Sub(r.clock).Seconds()
	r.clock = now
	stats := []metrics.Stat{{Name: "loss", Value: r.recent.Mean()}}
	if !math.IsNaN(r.lastValidation) {
		stats = append(stats, metrics.Stat{Name: "validation", Value: r.lastValidation})
	}
	r.progress.Update(done, units, append(stats, metrics.Stat{Name: "lr", Value: lr})...)
	r.Profile.Mark("progress line")
	return values, nil
}

// tracedSkips is how many skipped updates of a run are run again to find
// where they went wrong.
const tracedSkips = 3

// changesAlways tells of what an update changes even when it is skipped: gradient
// scales, counters, running shares.
func changesAlways(g *exec.Global) bool {
	return g.Role == exec.RoleBuffer || g.Role == exec.RoleState && !isCache(g)
}

// scratch copies what a skipped update changes, so that it can be run again.
func (r *running) scratch() [][]byte {
	if r.traced == tracedSkips {
		return nil
	}
	var out [][]byte
	for _, g := range r.Model.Select(changesAlways) {
		out = append(out, append([]byte(nil), g.Data...))
	}
	return out
}

// exchange swaps the tensors that scratch copies with contents.
func (r *running) exchange(contents [][]byte) {
	for n, g := range r.Model.Select(changesAlways) {
		now := append([]byte(nil), g.Data...)
		copy(g.Data, contents[n])
		contents[n] = now
	}
}

// explain notes which resblocks' gradients were not finite in a skipped update
// and, for the first ones, where that began.
func (r *running) explain(done int64, values map[string]float64, before [][]byte) {
	var where []string
	for name, v := range values {
		if block, ok := strings.CutPrefix(name, "grad_norm/"); ok && (math.IsNaN(v) || math.IsInf(v, 0)) {
			where = append(where, fmt.Sprintf("%s (scale 2^%.2f)", block, values["grad_scale/"+block]))
		}
	}
	slices.Sort(where)
	list := ""
	if len(where) > 0 {
		list = " in " + strings.Join(where, ", ")
	}
	r.progress.Note("%s: step %d: update skipped, its gradient is not finite%s", r.Stage.Name, done, list)
	p, ok := r.train.(interface{ Trace() *exec.Culprit })
	if !ok || r.traced == tracedSkips {
		return
	}
	r.traced++
	r.exchange(before)
	c := p.Trace()
	r.exchange(before)
	if c != nil {
		r.progress.Note("%s: step %d: %s", r.Stage.Name, done, c)
	}
}

// judge stops a run whose updates are skipped again and again.
func (r *running) judge(done int64, values map[string]float64) error {
	loss := values["loss"]
	if values["skipped"] == 0 && !math.IsNaN(loss) && !math.IsInf(loss, 0) {
		r.InARow = 0
		return nil
	}
	r.Skipped++
	r.InARow++
	if r.InARow < r.Stage.Options.MaxSkipped {
		return nil
	}
	good := "there is no snapshot before it"
	if r.saved >= 0 {
		good = fmt.Sprintf("the last snapshot is of step %d", r.saved)
	}
	return fmt.Errorf("%s: step %d: loss %v, gradient norm %v, %d skipped updates in a row: lower %s.lr (%g) or raise %s.warm_up; %s",
		r.Model.Name(), done, loss, values["grad_norm"], r.InARow, r.Stage.Name, r.Stage.Options.LR, r.Stage.Name, good)
}

// run runs the train program; at every so many steps it counts the exponents of its
// gradients meanwhile.
func (r *running) run(done int64, values map[string]float64) error {
	if r.exponents == nil || done != 1 && done%r.Config.Log.Exponents != 0 {
		r.train.Run()
		return nil
	}
	found := exponentHistograms(r.train, done)
	if found == nil {
		r.train.Run()
		return nil
	}
	for i := range found {
		if e := &found[i]; e.Len() > 0 {
			values["zero_gradients/"+e.Block+" "+e.DType] = float64(e.Zero) / float64(e.Len())
		}
	}
	if r.events != nil {
		if err := r.events.Exponents(done, found); err != nil {
			return err
		}
	}
	err := r.exponents.Write(found)
	r.Profile.Mark("an update for exponents of gradients")
	return err
}

// validate adds the means of eval's scalars over the validation batches, under
// "validation_NAME", and lets the plateau see them.
func (r *running) validate(done int64, values map[string]float64) error {
	means, err := Evaluate(r.eval, r.Stage.Options.ValidateBatches, r.Stage.Validation)
	if err != nil {
		return fmt.Errorf("%s: validation at step %d: %w", r.Stage.Name, done, err)
	}
	record := map[string]float64{}
	for name, v := range means {
		record["validation_"+name] = v
	}
	name := r.Stage.Loss
	if name == "" {
		name = "loss"
	}
	r.lastValidation = means[name]
	if r.Stage.Options.Schedule == SchedulePlateau && r.Plateau.Add(means[name], r.Stage.Options.PlateauWindow) {
		r.progress.Note("%s: step %d: validation loss has not improved, step size halved to %g", r.Stage.Name, done, r.Stage.Options.StepSize(done, r.Plateau.Halvings))
	}
	return r.write(done, record)
}

// Evaluate runs an eval program on batches 0..n-1 and returns the means of its
// scalar outputs.
func Evaluate(eval Program, n int, fill func(batch int) error) (map[string]float64, error) {
	means := map[string]float64{}
	for b := range n {
		if err := fill(b); err != nil {
			return nil, err
		}
		eval.Run()
		outputs := eval.Outputs()
		for i := range outputs {
			if outputs[i].DType == exec.F32 && outputs[i].Len() == 1 {
				x, err := outputs[i].F32()
				if err != nil {
					return nil, err
				}
				means[outputs[i].Name] += float64(x[0]) / float64(n)
			}
		}
	}
	return means, nil
}

// record writes the means since the last record; lr is the current one.
func (r *running) record(done int64, values map[string]float64) error {
	out := map[string]float64{}
	for name, m := range r.since {
		out[name] = m.sum / float64(m.n)
	}
	clear(r.since)
	out["lr"] = values["lr"]
	out["skipped"] = float64(r.Skipped)
	out["seconds"] = r.Seconds
	out[r.Stage.Unit] = r.units
	r.units = 0
	if r.Stage.Extra != nil {
		r.Stage.Extra(out)
	}
	return r.write(done, out)
}

func (r *running) write(done int64, values map[string]float64) error {
	if err := r.log.Write(done, values); err != nil {
		return err
	}
	if r.events != nil {
		return r.events.Scalars(done, values)
	}
	return nil
}

func (r *running) save(done int64) error {
	cursor, err := json.Marshal(r.Stage.Upstream)
	if err != nil {
		return err
	}
	own, err := json.Marshal(r.state)
	if err != nil {
		return fmt.Errorf("%s: step %d: %w", r.Stage.Name, done, err)
	}
	if err := r.log.Sync(); err != nil {
		return err
	}
	if r.exponents != nil {
		if err := r.exponents.Sync(); err != nil {
			return err
		}
	}
	weights, optimizer, metadata := partition(r.Model)
	_, err = r.store.Save(snapshot.State{
		Identity: identity(r.Model), Step: done, Seed: r.Config.Seed, Config: r.Text,
		Cursor: cursor, State: own, Weights: weights, Optimizer: optimizer, Metadata: metadata,
	})
	if err != nil {
		return err
	}
	r.saved = done
	r.clock = time.Now() // saving is not training
	return nil
}
