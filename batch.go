package afterimage

// BatchHeader says which part of a lane's log a batch covers. Batches of an incarnation form a chain: From of each is To
// of the one before.
type BatchHeader struct {
	Lane        string   `json:"lane"`        // name of the lane, for example the replica set's name
	Incarnation string   `json:"incarnation"` // identity of the log itself, for example the replica set id in hex
	Epoch       uint32   `json:"epoch"`       // steps when the log no longer held our position: a gap lies between
	From        Position `json:"from"`        // exclusive
	To          Position `json:"to"`          // inclusive
	Horizon     Time     `json:"horizon"`     // after this batch, nothing at or below this time can appear any more
	RestartFrom Position `json:"restartFrom"` // oldest position needed to rebuild what is open (transactions)
}

// Batch is a run of changes of one lane, in log order, with notes for the manifest.
type Batch struct {
	BatchHeader
	Notes   [][]byte // JSON of package manifest's Note, in order; committed together with Changes
	Changes []Change
}

// Last is the newest batch that is durable in a lane's stream.
type Last struct {
	BatchHeader
	Seq uint64 // stream sequence of its last message; 0 when the stream is empty
}
