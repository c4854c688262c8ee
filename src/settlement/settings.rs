use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

/// Who says whether a purchase has been paid.
#[derive(Clone, Debug)]
pub enum Method {
    /// Nobody: nothing can be bought.
    None,
    /// Every purchase counts as paid. For development.
    Trusted,
    /// A program of the operator's.
    Command(Program),
}

/// A program that says whether a purchase has been paid: it reads one line of JSON
/// ([`Purchase`](super::Purchase)) to its end and exits with 0 for paid, 1 for pending (nothing is
/// seen of the payment), 2 for refused, 4 for seen (the payment is right, and not confirmed yet).
///
/// It is started once a purchase, in the node's working folder and with no other environment than
/// [`environment`](Program::environment). Anything else that it does counts as pending and is
/// logged, with the end of what it wrote to either output.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file, with a slash in it: `PATH` is not searched.
    pub path: PathBuf,
    /// What follows the program's name. The purchase is not among it, since everyone on the machine
    /// can read it.
    pub arguments: Vec<OsString>,
    /// All of its environment.
    pub environment: Variables,
    /// How long it may take; then it is killed with its children. A purchase waits for its turn no
    /// longer than this either, so a verdict takes at most twice this time.
    pub timeout: Duration,
    /// How many may run at once.
    pub at_most: usize,
    /// How many purchases may wait for their turn; further ones are pending at once.
    pub waiting_max: usize,
}

/// Environment variables, each a name and a value. The values may be passwords: they are shown
/// nowhere.
#[derive(Clone, Default)]
pub struct Variables(Vec<(OsString, OsString)>);

impl Variables {
    /// In the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl FromIterator<(OsString, OsString)> for Variables {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Variables {
        Variables(variables.into_iter().collect())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}
