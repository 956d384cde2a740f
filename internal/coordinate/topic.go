package coordinate

import "slices"

// topic has the members that hear what is published under one name.
type topic struct {
	Number    uint64 // never used again
	Members   []int  // sorted
	Published int64
	Missed    int64 // copies that did not reach a subscriber
}

// Subscribe makes the member hear the topic, and returns its number.
func (st *State) Subscribe(id int, name string) (number uint64, err error) {
	m := st.Members[id]
	if m == nil {
		return 0, nil
	}
	t := st.Topics[name]
	if t != nil {
		if _, has := slices.BinarySearch(t.Members, id); has {
			return t.Number, nil
		}
	}
	if m.Topics >= Most {
		return 0, tooMany("a process subscribes to %d topics at most", Most)
	}
	if t == nil {
		st.LastTopic++
		t = &topic{Number: st.LastTopic}
		st.Topics[name] = t
		st.Numbers[t.Number] = name
	}
	m.Topics++
	at, _ := slices.BinarySearch(t.Members, id)
	t.Members = slices.Insert(t.Members, at, id)
	return t.Number, nil
}

// Unsubscribe makes the member hear the topic no more.
func (st *State) Unsubscribe(id int, name string) {
	if t := st.Topics[name]; t != nil {
		st.unsubscribe(id, name, t)
	}
}

func (st *State) unsubscribe(id int, name string, t *topic) {
	at, has := slices.BinarySearch(t.Members, id)
	if !has {
		return
	}
	t.Members = slices.Delete(t.Members, at, at+1)
	st.Members[id].Topics--
	if len(t.Members) == 0 {
		st.Missed += t.Missed
		delete(st.Topics, name)
		delete(st.Numbers, t.Number)
	}
}

// Publish counts a message and returns the members that hear it. The list is the state's own.
func (st *State) Publish(name string) (number uint64, members []int) {
	t := st.Topics[name]
	if t == nil {
		return 0, nil
	}
	t.Published++
	return t.Number, t.Members
}

// Miss counts copies that did not reach a subscriber.
func (st *State) Miss(number uint64, copies int64) {
	if t := st.Topics[st.Numbers[number]]; t != nil {
		t.Missed += copies
	} else {
		st.Missed += copies
	}
}

// silence makes the member hear no topic any more.
func (st *State) silence(id int) {
	for name, t := range st.Topics {
		st.unsubscribe(id, name, t)
	}
}
