package file

import (
	"fmt"
	"strings"

	"sluice/internal/strictyaml"
	"sluice/policy"
)

// reading says what of a policy could not be read, since other mistakes may only follow from
// that.
type reading struct {
	index int    // of the policy in the file
	match string // "" if it could not be read
	// undirected: direction could not be read; scores: one of the thresholds.
	undirected, scores bool
}

// explains reports whether a problem was told already, or may only follow from what could
// not be read.
func (r *reading) explains(p policy.Problem) bool {
	return p.Path[0] == "match" && (r.match == "" || r.undirected) || p.Thresholds && r.scores
}

// place is where a problem points.
type place struct{ line, column int }

// check checks policies of which something may not have been read, and adds what it finds to
// the problems. The snapshot is nil if any policy has a mistake of its own.
func (l *places) check(entries []policy.Entry, items []reading, problems strictyaml.Problems, opts Options) (*policy.Snapshot, strictyaml.Problems) {
	told := make(map[place]bool, len(problems))
	for _, p := range problems {
		told[place{p.Line, p.Column}] = true
	}
	l.noticeIdle(entries, items, opts)
	notices := 0
	doubtful := doubtfulPlans(items)
	snapshot, found := policy.Check(entries, policy.SnapshotOptions{Delimiters: opts.Delimiters, Generation: opts.Generation}, opts.Built)
	for _, p := range found {
		it := &items[p.Entry]
		if it.explains(p) || p.Path[0] == "like" && !p.Thresholds && doubtful.has(&entries[p.Entry], it) {
			continue
		}
		if p.Advice && (opts.Notice == nil || notices >= strictyaml.MaxProblems) {
			continue
		}
		at := l.problem(it.index, p.Message, p.Remedy, p.Path...)
		switch _, element := p.Path[len(p.Path)-1].(int); {
		case element && told[place{at.Line, at.Column}]: // it could not be read
		case p.Advice:
			notices++
			opts.Notice(at)
		default:
			problems = append(problems, at)
		}
		if len(problems) >= strictyaml.MaxProblems {
			break
		}
	}
	return snapshot, problems
}

// noticeIdle tells of each field that is set and has no effect, where it stands first.
func (l *places) noticeIdle(entries []policy.Entry, items []reading, opts Options) {
	if opts.Notice == nil {
		return
	}
	told := map[string]bool{}
	for n := range entries {
		for f := range entries[n].Policy.All() {
			if why := f.NoEffect(opts.Built); why != "" && !told[f.Key] {
				told[f.Key] = true
				opts.Notice(l.keyProblem(items[n].index, why, "", f.Key))
			}
		}
	}
}

// plans are matches of plans that a like may mean although they aren't found.
type plans struct {
	undirected map[string]bool // their direction could not be read
	all        map[string]bool // of either direction, for a policy whose own could not be read
}

func doubtfulPlans(items []reading) plans {
	d := plans{map[string]bool{}, map[string]bool{}}
	for i := range items {
		if it := &items[i]; strings.HasPrefix(it.match, "=") {
			d.all[it.match] = true
			if it.undirected {
				d.undirected[it.match] = true
			}
		}
	}
	return d
}

// has reports whether the plan that the entry is like may be there.
func (d plans) has(e *policy.Entry, it *reading) bool {
	name, _ := e.Policy.Get("like")
	plan := "=" + fmt.Sprint(name)
	return d.undirected[plan] || it.undirected && d.all[plan]
}
