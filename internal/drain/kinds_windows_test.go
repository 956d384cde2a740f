package drain

// connKinds are the kinds of connections that are tracked.
var connKinds = []string{"tcp", "foreign"}

// cutRaces is how often TestConnCutRace tries: under Wine each round trip takes
// ten times as long.
const cutRaces = 20
