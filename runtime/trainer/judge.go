package trainer

import (
	"errors"

	"github.com/gouache-ml/gouache/runtime/feed/picture"
	"github.com/gouache-ml/gouache/runtime/feed/shapes"
	"github.com/gouache-ml/gouache/runtime/sample"
)

// score is how often pictures of shapes show what captions say, as parts of 1. Each
// condition includes the one before: shapes and colours, then sizes, then positions
// and relations.
type score struct {
	Shapes    float64 `json:"shapes_and_colors"`
	Sizes     float64 `json:"sizes"`
	All       float64 `json:"all"` // everything the caption says
	n         int
	singles   float64
	pairs     float64
	nSingles  int
	nPairs    int
	Singles   float64 `json:"all_of_single_objects"`
	Relations float64 `json:"all_of_pairs"`
}

// add counts a picture and tells whether shapes and colours, and everything, are as the
// scene has them.
func (s *score) add(v shapes.Verdict, scene shapes.Scene) grade {
	what, sizes, relation := v.Matches(scene)
	all := what && sizes && relation
	s.n++
	count := func(sum *float64, ok bool) {
		if ok {
			*sum++
		}
	}
	count(&s.Shapes, what)
	count(&s.Sizes, what && sizes)
	count(&s.All, all)
	if len(scene.Objects) > 1 {
		s.nPairs++
		count(&s.pairs, all)
	} else {
		s.nSingles++
		count(&s.singles, all)
	}
	return grade{what, all}
}

// grade is what a picture shows of what its caption says.
type grade struct{ shapes, all bool }

// share turns counts into parts of 1.
func (s *score) share() {
	n := float64(max(1, s.n))
	s.Shapes, s.Sizes, s.All = s.Shapes/n, s.Sizes/n, s.All/n
	s.Singles = s.singles / float64(max(1, s.nSingles))
	s.Relations = s.pairs / float64(max(1, s.nPairs))
}

// judged is the judge's opinion of samples.
type judged struct {
	Best   score   // the candidate that ranks first
	First  score   // the candidate drawn first: what there would be without ranking
	Any    score   // the share of all candidates that are right
	Other  score   // best candidates against the captions of others: chance
	Grades []grade // of the best, by caption
	Scenes []shapes.Scene
}

// judgeSamples scores samples of captions in the shapes' grammar.
func judgeSamples(results []sample.Result) (*judged, error) {
	j := &judged{}
	var verdicts []shapes.Verdict
	for _, r := range results {
		if len(r.Candidates) == 0 {
			return nil, errors.New("internal: a caption without candidates")
		}
		scene, err := shapes.ParseCaption(r.Caption)
		if err != nil {
			return nil, err
		}
		j.Scenes = append(j.Scenes, scene)
		verdicts = append(verdicts, judge(r.Candidates[0].Picture))
		j.Grades = append(j.Grades, j.Best.add(verdicts[len(verdicts)-1], scene))
		j.First.add(judge(r.First().Picture), scene)
		for _, c := range r.Candidates {
			j.Any.add(judge(c.Picture), scene)
		}
	}
	for i, v := range verdicts {
		for k, scene := range j.Scenes {
			if k != i {
				j.Other.add(v, scene)
			}
		}
	}
	for _, s := range []*score{&j.Best, &j.First, &j.Any, &j.Other} {
		s.share()
	}
	return j, nil
}

func judge(p picture.Picture) shapes.Verdict { return shapes.Judge(p.Pixels, p.Width) }
