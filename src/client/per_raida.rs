use std::ops::{Index, IndexMut};

use crate::protocol::RaidaId;

/// One value for each server of a network.
///
/// ```
/// use raida::client::PerRaida;
/// let squares = PerRaida::from_fn(|raida| u32::from(raida.get()).pow(2));
/// assert_eq!(squares.iter().map(|(_, square)| square).max(), Some(&576));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerRaida<T>([T; RaidaId::COUNT]);

impl<T> PerRaida<T> {
    /// The values that `value` returns for each server.
    pub fn from_fn(mut value: impl FnMut(RaidaId) -> T) -> PerRaida<T> {
        let mut all = RaidaId::all();
        PerRaida(std::array::from_fn(|_| {
            value(all.next().expect("there are as many servers as values"))
        }))
    }

    /// The values with their servers, by rising number.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (RaidaId, &T)> {
        RaidaId::all().zip(&self.0)
    }

    /// The values that `of` makes of each value.
    pub fn map<U>(self, of: impl FnMut(T) -> U) -> PerRaida<U> {
        PerRaida(self.0.map(of))
    }

    /// Number of servers that this holds for.
    pub fn count(&self, holds: impl Fn(&T) -> bool) -> usize {
        self.0.iter().filter(|value| holds(value)).count()
    }
}

impl<T> IntoIterator for PerRaida<T> {
    type Item = (RaidaId, T);
    type IntoIter = std::iter::Zip<
        std::array::IntoIter<RaidaId, { RaidaId::COUNT }>,
        std::array::IntoIter<T, { RaidaId::COUNT }>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        let PerRaida(all) = PerRaida::from_fn(|raida| raida);
        all.into_iter().zip(self.0)
    }
}

impl<T> Index<RaidaId> for PerRaida<T> {
    type Output = T;

    fn index(&self, raida: RaidaId) -> &T {
        &self.0[usize::from(raida.get())]
    }
}

impl<T> IndexMut<RaidaId> for PerRaida<T> {
    fn index_mut(&mut self, raida: RaidaId) -> &mut T {
        &mut self.0[usize::from(raida.get())]
    }
}
